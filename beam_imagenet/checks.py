"""Second looks at images whose headers can be read: were they cut off, do their pixels decode?

Knows nothing of archives, shards or Beam, nor of what becomes of a suspect image.
"""

from __future__ import annotations

import io

import simplejpeg
from PIL import Image, UnidentifiedImageError

from beam_imagenet.images import END_OF_IMAGE, ImageFacts, chunks, markers, without_warnings

_DATA_WARNINGS = (
    "Corrupt JPEG data",
    "Inconsistent progression sequence",
    "Invalid SOS parameters",
    "Premature end of JPEG file",
)
"""How libjpeg's warnings about the image's data start. It decodes on after them, and so do Pillow and
TensorFlow, to blocks of gray or of wrong colours."""


def suspicion(data: bytes | memoryview, facts: ImageFacts, *, level: str) -> str | None:
    """What is suspect about an image, in words, or None. Never raises for what is in an image.

    Args:
        data: The whole file, as it is in the archive.
        facts: What `probe` says of it.
        level: One of `model.CHECK_LEVELS`. "none" finds nothing; "header" looks for the end mark, in
            0.2 us where it is in its place; "decode" reads all pixels as well, in about a millisecond.
    """
    if level == "none":
        return None
    if facts.oddity is not None:
        return facts.oddity
    thorough = level == "decode"
    if facts.format == "PNG":
        reason = _png_end(data)
        complaint = _png_complaint(data) if thorough else None
    else:
        reason = _jpeg_end(data, facts.header_stop, thorough=thorough)
        complaint = _jpeg_complaint(data) if thorough else None
    return "; ".join(filter(None, (reason, complaint))) if complaint else reason


def _jpeg_end(data: bytes | memoryview, header_stop: int, *, thorough: bool) -> str | None:
    ends_well = data[-1] == END_OF_IMAGE and data[-2] == 0xFF and len(data) >= header_stop + 2
    if ends_well and not thorough:
        return None
    # Not any FF D9: the thumbnail in a segment has an end mark of its own.
    for code, position in markers(data, header_stop):
        if code == END_OF_IMAGE:
            return _rest(len(data) - position - 2, "end-of-image mark")
    return "it has no end-of-image mark"


def _png_end(data: bytes | memoryview) -> str | None:
    for kind, _, stop in chunks(data):
        if kind == b"IEND":
            return _rest(len(data) - stop, "end mark (IEND)")
    return "it has no end mark (IEND)"


def _rest(size: int, mark: str) -> str | None:
    return f"it has {size:,} byte{'s' if size > 1 else ''} after its {mark}" if size else None


def _jpeg_complaint(data: bytes | memoryview) -> str | None:
    """What decoders say against a JPEG, decoded at an eighth of its size.

    All of its entropy-coded data is read at any scale, and damage shows there.
    """
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        words = str(error).rpartition("(): ")[2]
        if words.startswith(_DATA_WARNINGS) and "ICC" not in words:  # a profile shows no pixels
            return f"a decoder complains: {words}"
    except KeyError:
        words = "unsupported chroma sampling"
    else:
        return None
    # TurboJPEG has no name for some legal chroma samplings, so its refusal alone proves nothing.
    second = _pillows_complaint(data, "JPEG")
    return f"two decoders complain: {words}; {second}" if second else None


def _png_complaint(data: bytes | memoryview) -> str | None:
    words = _pillows_complaint(data, "PNG")
    return f"a decoder complains: {words}" if words else None


def _pillows_complaint(data: bytes | memoryview, format: str) -> str | None:
    try:
        with without_warnings():
            if format == "PNG":
                with Image.open(io.BytesIO(data), formats=[format]) as image:
                    image.verify()  # the checksums, and closes it
            with Image.open(io.BytesIO(data), formats=[format]) as image:
                image.load()
    except MemoryError:  # the worker's fault, not the image's
        raise
    except UnidentifiedImageError:  # its text has an address in memory
        return f"this is no {format} that can be decoded"
    except Exception as error:  # Pillow raises whatever its parsers stumble over
        return str(error) or type(error).__name__
    return None
