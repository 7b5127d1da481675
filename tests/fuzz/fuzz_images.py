"""Fuzzes the looks at image headers: `images.probe` and `checks.suspicion` on arbitrary bytes.

    pip install atheris
    python -m tests.fuzz.fuzz_images --runs=1000000

Only ImageError may come out, every reason is a sentence, and no input takes long.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import atheris
from PIL import Image

from tests.fuzz.fuzzing import fuzz, require_sentence

with atheris.instrument_imports(include=["beam_imagenet"]):
    from beam_imagenet.checks import suspicion
    from beam_imagenet.errors import ImageError
    from beam_imagenet.images import MAX_PIXELS, probe


def check(data: bytes) -> None:
    """Raises AssertionError where a promise is broken."""
    view = memoryview(data)
    try:
        facts = probe(view)
    except ImageError as error:
        require_sentence(str(error))
        return
    assert facts.format in ("JPEG", "PNG")
    assert 0 < facts.width * facts.height <= MAX_PIXELS
    assert (facts.format == "PNG") == (facts.components == 0)
    assert facts.needs_fix in (None, "CMYK", "PNG")
    assert 0 < facts.header_stop <= len(data)
    assert suspicion(view, facts, level="none") is None
    reason = suspicion(view, facts, level="header")
    if reason is None:
        ends = {"JPEG": b"\xff\xd9", "PNG": b""}
        assert data[facts.header_stop :].endswith(ends[facts.format])
    else:
        require_sentence(reason)


def _saved(mode: str, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (13, 9)).save(buffer, format, **options)
    return buffer.getvalue()


def _seeds() -> dict[str, bytes]:
    jpeg = _saved("RGB", "JPEG")
    exif = b"Exif\0\0" + jpeg
    frame = jpeg.index(b"\xff\xc0") + 5
    return {
        "baseline": jpeg,
        "progressive": _saved("RGB", "JPEG", progressive=True),
        "gray": _saved("L", "JPEG"),
        "cmyk": _saved("CMYK", "JPEG"),
        "restarts": _saved("RGB", "JPEG", restart_marker_blocks=1),
        "thumbnail": jpeg[:2] + struct.pack(">BBH", 255, 0xE1, len(exif) + 2) + exif + jpeg[2:],
        "lines": jpeg[:frame] + b"\0\0" + jpeg[frame + 2 : -2] + b"\xff\xdc\0\4\0\x09" + jpeg[-2:],
        "fill": jpeg.replace(b"\xff\xdb", b"junk\xff\xff\xff\xdb"),
        "png": _saved("RGB", "PNG"),
        "palette": _saved("P", "PNG", transparency=0),
    }


if __name__ == "__main__":
    fuzz(check, name="images", seeds=_seeds())
