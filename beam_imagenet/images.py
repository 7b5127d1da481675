"""Image bytes: what they are, and the colour fixes that make every image an RGB or grayscale JPEG.

Knows nothing of archives, shards or Beam. What an image is follows from its bytes, never from its
name, and never from what a codec refuses: codecs refuse legal JPEGs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from beam_imagenet import cmyk
from beam_imagenet.errors import ImageError

MAX_PIXELS = 178_956_970
"""What Pillow calls a decompression bomb; ImageNet's largest image has a third of it."""

MAX_PIXELS_A_BYTE = 1024
"""Of a JPEG: a block of 8 x 8 takes one bit at least, and 128 pixels at the oddest sampling share one."""

_JPEG_SIGNATURE = b"\xff\xd8"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_START = _PNG_SIGNATURE + b"\0\0\0\x0dIHDR"
_PNG_HEADER_BYTES = 33
_CHUNK = struct.Struct(">I4s")
_SEGMENT = struct.Struct(">BBH")
_FRAME = struct.Struct(">HHB")
_NOT_FRAMES = frozenset((0xC4, 0xC8, 0xCC))  # DHT, JPG and DAC share SOF's range of codes
END_OF_IMAGE = 0xD9
_START_OF_SCAN, _DNL = 0xDA, 0xDC
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""A marker with a length or an end: TEM and RST0 to RST7 have none, 0 and 255 make no marker."""

_WARNINGS_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's header tells.

    Attributes:
        format: "JPEG" or "PNG".
        width: Pixels.
        height: Pixels.
        components: Colour components of a JPEG: 1 gray, 3 colour, 4 CMYK or YCCK. 0 for a PNG.
        header_stop: Position after a JPEG's frame header, or after a PNG's IHDR.
        oddity: Why decoding comes to nothing although the header can be read, in words.
    """

    format: str
    width: int
    height: int
    components: int
    header_stop: int = dataclasses.field(default=0, compare=False)
    oddity: str | None = None

    @property
    def needs_fix(self) -> str | None:
        """What the image is converted from, "CMYK" or "PNG"; None if it is carried over as it is."""
        if self.format == "PNG":
            return "PNG"
        return "CMYK" if self.components == 4 else None


def probe(data: bytes | memoryview) -> ImageFacts:
    """Reads an image's header by a walk over its markers; costs about 2 us.

    Args:
        data: The whole file.

    Raises:
        ImageError: It is no image: neither a JPEG with a frame header nor a PNG with its own, or of
            dimensions that no photograph has.
    """
    if data[:2] != _JPEG_SIGNATURE:
        return _probe_png(data)
    position = 2
    stop = len(data) - 9
    while position < stop:
        mark, code, length = _SEGMENT.unpack_from(data, position)
        if mark != 0xFF or code <= 0x01 or code == 0xFF or 0xD0 <= code <= 0xD7:
            # Decoders pass over fill bytes, stray bytes and markers without a length.
            marker = _MARKER.search(data, position + 1)
            if marker is None:
                break
            position = marker.start()
        elif 0xC0 <= code <= 0xCF and code not in _NOT_FRAMES:
            height, width, components = _FRAME.unpack_from(data, position + 5)
            header_stop = position + 2 + length
            if (
                length == 8 + 3 * components > 8
                and 0 < width * height <= min(MAX_PIXELS, MAX_PIXELS_A_BYTE * len(data))
                and header_stop <= len(data)
            ):
                return ImageFacts("JPEG", width, height, components, header_stop)
            return _odd_frame(data, header_stop, length, width, height, components)
        elif code in (0xD8, END_OF_IMAGE, _START_OF_SCAN) or length < 2:
            break
        else:
            position += 2 + length
    raise ImageError("it is a JPEG without a frame header")


def _probe_png(data: bytes | memoryview) -> ImageFacts:
    start = bytes(data[: len(_PNG_START)])
    if not start.startswith(_PNG_SIGNATURE):
        what = f"it starts with {start[:8].hex(' ')}" if start else "it is empty"
        raise ImageError(f"it is neither a JPEG nor a PNG ({what})")
    if len(data) < _PNG_HEADER_BYTES:
        raise ImageError("it is a PNG that ends inside its header")
    if start != _PNG_START:
        raise ImageError("it is a PNG that does not start with its header (IHDR)")
    width, height = struct.unpack_from(">II", data, len(_PNG_START))
    _require_dimensions(width, height)
    return ImageFacts("PNG", width, height, 0, _PNG_HEADER_BYTES)


def _odd_frame(
    data: bytes | memoryview,
    header_stop: int,
    length: int,
    width: int,
    height: int,
    components: int,
) -> ImageFacts:
    """The facts of a frame header that is not like any photograph's, if it can be read at all."""
    if components == 0 or length < 8 + 3 * components:
        raise ImageError("it is a JPEG whose frame header does not list its colour components")
    if header_stop > len(data):
        raise ImageError("it is a JPEG that ends inside its frame header")
    lines = height or _lines_behind_first_scan(data, header_stop)
    _require_dimensions(width, lines)
    if height == 0:
        # Legal where a DNL segment tells the height behind the first scan, so it is no damage. But
        # libjpeg has never read those, nor does TensorFlow, so it is worth a word.
        oddity = "its height is told behind its first scan (DNL), where TensorFlow does not look"
    elif length > 8 + 3 * components:
        oddity = "its frame header is longer than its list of colour components"
    else:
        oddity = f"its {len(data):,} bytes cannot hold {width:,} x {height:,} pixels"
    return ImageFacts("JPEG", width, lines, components, header_stop, oddity)


def _lines_behind_first_scan(data: bytes | memoryview, header_stop: int) -> int:
    scanned = False
    for code, position in markers(data, header_stop):
        if scanned:
            has_lines = code == _DNL and position + 6 <= len(data)
            return int.from_bytes(data[position + 4 : position + 6], "big") if has_lines else 0
        scanned = code == _START_OF_SCAN
    return 0


def _require_dimensions(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"its header claims {width:,} x {height:,} pixels, as no photograph has")


def markers(data: bytes | memoryview, start: int) -> Iterator[tuple[int, int]]:
    """Yields a JPEG's markers behind `start`, between segments, as code and position.

    Scans are searched at the speed of a regular expression: all of a photograph takes 40 us.
    """
    marker = _MARKER.search(data, start)
    while marker is not None:
        position = marker.start()
        code = data[position + 1]
        yield code, position
        length = int.from_bytes(data[position + 2 : position + 4], "big") if code != 0xD8 else 0
        marker = _MARKER.search(data, position + 2 + length)


def chunks(data: bytes | memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Yields a PNG's whole chunks, up to its end mark (IEND): kind, start, and stop after the checksum."""
    start = len(_PNG_SIGNATURE)
    while start + 12 <= len(data):
        length, kind = _CHUNK.unpack_from(data, start)
        stop = start + 12 + length
        if stop > len(data):
            return
        yield kind, start, stop
        if kind == b"IEND":
            return
        start = stop


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps Python's warnings quiet: Pillow's are about an image, and do not tell which one."""
    # What warnings do is one setting for all threads.
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_rgb_jpeg(data: bytes) -> bytes:
    """Converts a CMYK or YCCK JPEG, or a PNG, to the JPEG that TFDS makes of it.

    The bytes are TFDS's (`jpeg_cmyk_to_rgb` and `png_to_jpeg` in its core/utils/image_utils.py):
    TensorFlow's decoding, then libjpeg at quality 100 with 4:2:0 chroma and 300 dots an inch.

    Raises:
        ImageError: The image cannot be decoded.
    """
    output = io.BytesIO()
    try:
        facts = probe(data)
        _require_whole(data, facts)
        with without_warnings():
            pixels = _png_to_rgb(data) if facts.format == "PNG" else cmyk.decode_rgb(data)
            Image.fromarray(pixels).save(output, "JPEG", quality=100, subsampling=2, dpi=(300, 300))
    except MemoryError:  # the worker's fault, which may not leave an image out of a dataset
        raise
    except UnidentifiedImageError as error:  # its text has an address in memory
        raise ImageError("it has to be converted to RGB, but its header is damaged") from error
    except Exception as error:  # Pillow raises whatever its parsers stumble over
        raise ImageError(f"it has to be converted to RGB, which failed ({error})") from error
    return output.getvalue()


def _require_whole(data: bytes, facts: ImageFacts) -> None:
    """TensorFlow decodes nothing that was cut off; Pillow is content with all rows of pixels."""
    if facts.oddity is not None:
        raise ImageError(facts.oddity)
    if facts.format == "JPEG":
        if all(code != END_OF_IMAGE for code, _ in markers(data, facts.header_stop)):
            raise ImageError("it has no end-of-image mark")
        return
    for kind, start, stop in chunks(data):
        if zlib.crc32(data[start + 4 : stop - 4]) != int.from_bytes(data[stop - 4 : stop], "big"):
            raise ImageError(f"the checksum of its chunk at byte {start:,} fails")
        if kind == b"IEND":
            return
    raise ImageError("it has no end mark (IEND)")


def _png_to_rgb(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.mode.startswith("I"):
            # 16-bit gray: libpng keeps the high byte, Pillow's own conversion clips.
            high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            return np.repeat(high[:, :, np.newaxis], 3, axis=2)
        return np.asarray(image.convert("RGB"))
