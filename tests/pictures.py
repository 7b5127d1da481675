"""Small images of noise, as codecs save them, for tests of what an image is and becomes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CHANNELS = {"L": 1, "RGB": 3, "CMYK": 4}


def pixels(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    random = np.random.default_rng((height, width, channels))
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(mode: str, format: str, *, height: int = 9, width: int = 13, **options: Any) -> bytes:
    """An image of noise as Pillow saves it."""
    image = Image.fromarray(pixels(height, width, 3))
    buffer = io.BytesIO()
    (image if mode == "RGB" else image.convert(mode)).save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_size(png: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header."""
    return png[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + png[24:29]) + png[33:]


def with_frame(
    jpeg: bytes,
    *,
    precision: int = 8,
    height: int = 9,
    width: int = 13,
    components: int | None = None,
    length: int | None = None,
    more: bytes = b"",
) -> bytes:
    """The JPEG with another frame header; what is not given is right."""
    start = jpeg.index(b"\xff\xc0")
    old = int.from_bytes(jpeg[start + 2 : start + 4], "big")
    listed = jpeg[start + 10 : start + 2 + old] + more
    header = struct.pack(
        ">HBHHB",
        8 + len(listed) if length is None else length,
        precision,
        height,
        width,
        len(listed) // 3 if components is None else components,
    )
    return jpeg[: start + 2] + header + listed + jpeg[start + 2 + old :]


def behind_first_scan(jpeg: bytes, segment: bytes) -> bytes:
    """The JPEG with a segment after its only scan."""
    return jpeg[:-2] + segment + jpeg[-2:]


def exif() -> bytes:
    block = Image.Exif()
    block[0x0112] = 6  # rotated, which changes no header
    block[0x010E] = "d" * 60_000
    return block.tobytes()


JPEG = saved("RGB", "JPEG")
PNG = saved("RGB", "PNG")
LINES = b"\xff\xdc\0\4\0\x09"
