"""CMYK and YCCK JPEGs to the pixels of `tf.image.decode_jpeg`, for each way of storing the inks."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from beam_imagenet import cmyk

Encoder = Callable[[int, int], bytes]

SIZES = [(1, 1), (2, 2), (3, 2), (5, 3), (1, 9), (9, 1), (17, 16), (33, 47)]
"""(height, width): alone, less than a filter's width, and across the edges of blocks."""


def inks(height: int, width: int) -> NDArray[np.uint8]:
    """Four planes of noise on slopes: sharp enough that each rounding of a filter shows."""
    rows, columns, plane = np.mgrid[:height, :width, :4]
    slopes = (rows * 3 * (plane + 1) + columns * 7 + plane * 40) % 256
    noise = np.random.default_rng((height, width)).integers(0, 90, slopes.shape)
    planes: NDArray[np.uint8] = (slopes * 0.6 + noise).astype(np.uint8)
    return planes


def by_turbojpeg(subsampling: str) -> Encoder:
    """YCCK with Adobe's marker, black in full resolution."""
    return lambda height, width: simplejpeg.encode_jpeg(
        np.ascontiguousarray(inks(height, width)),
        quality=90,
        colorspace="CMYK",
        colorsubsampling=subsampling,
    )


def by_pillow(
    subsampling: int, *, adobe_transform: int | None = 0, progressive: bool = False
) -> Encoder:
    """All but the first plane are subsampled, a layout that TurboJPEG has no name for.

    Args:
        subsampling: 0 for none, 1 for 4:2:2, 2 for 4:2:0.
        adobe_transform: 0 for CMYK, 2 for YCCK, None to leave Adobe's marker out.
        progressive: Whether in scans.
    """

    def encode(height: int, width: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(inks(height, width), "CMYK").save(
            buffer, "JPEG", quality=90, subsampling=subsampling, progressive=progressive
        )
        jpeg = buffer.getvalue()
        marker = jpeg.index(b"\xff\xee\x00\x0eAdobe")
        rest = jpeg[marker + 16 :]
        if adobe_transform is None:
            return jpeg[:marker] + rest
        return jpeg[: marker + 15] + bytes((adobe_transform,)) + rest

    return encode


INK_ENCODERS: dict[str, Encoder] = {
    **{f"YCCK {name}": by_turbojpeg(name) for name in ("444", "422", "420", "440", "411")},
    **{
        f"{space} by Pillow {name}": by_pillow(subsampling, adobe_transform=transform)
        for space, transform in (("CMYK", 0), ("YCCK", 2), ("CMYK without Adobe", None))
        for subsampling, name in enumerate(("444", "422", "420"))
    },
    "progressive CMYK": by_pillow(0, progressive=True),
    "progressive CMYK 420": by_pillow(2, progressive=True),
}

# Huffman tables of few symbols: for each code length how many, and which.
_DC = (bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), bytes(range(12)))
_AC = (bytes([0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), bytes(range(7)))


def _codes(table: tuple[bytes, bytes]) -> dict[int, str]:
    code, symbols, codes = 0, iter(table[1]), {}
    for length, count in enumerate(table[0], start=1):
        for _ in range(count):
            codes[next(symbols)] = f"{code:0{length}b}"
            code += 1
        code <<= 1
    return codes


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def sampled(
    height: int,
    width: int,
    factors: Sequence[tuple[int, int]],
    *,
    adobe_transform: int | None = None,
) -> bytes:
    """A baseline JPEG of random coefficients, with sampling factors that no encoder here writes."""
    random = np.random.default_rng((height, width))
    dc_codes, ac_codes = _codes(_DC), _codes(_AC)
    bits = []

    def put(codes: dict[int, str], value: int) -> None:
        length = abs(value).bit_length()
        bits.append(codes[length])
        if length:
            bits.append(f"{value if value > 0 else value + (1 << length) - 1:0{length}b}")

    most_horizontal = max(horizontal for horizontal, _ in factors)
    most_vertical = max(vertical for _, vertical in factors)
    last = [0] * len(factors)
    for _ in range(-(-height // (8 * most_vertical)) * -(-width // (8 * most_horizontal))):
        for component, (horizontal, vertical) in enumerate(factors):
            for _ in range(horizontal * vertical):
                mean = int(random.integers(-80, 80))
                put(dc_codes, mean - last[component])
                last[component] = mean
                for size, sign in random.integers((1, 0), (30, 2), (5, 2)).tolist():
                    put(ac_codes, size if sign else -size)
                put(ac_codes, 0)  # end of block
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    scan = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\x00")
    components = b"".join(
        bytes((number, horizontal << 4 | vertical, 0))
        for number, (horizontal, vertical) in enumerate(factors)
    )
    selectors = itertools.chain(*((number, 0) for number in range(len(factors))))
    adobe = b"" if adobe_transform is None else b"Adobe\0d\0\0\0\0" + bytes((adobe_transform,))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xEE, adobe) if adobe else b"",
            _segment(0xDB, b"\0" + b"\x08" * 64),
            _segment(0xC0, struct.pack(">BHHB", 8, height, width, len(factors)) + components),
            _segment(0xC4, b"\x00" + b"".join(_DC)),
            _segment(0xC4, b"\x10" + b"".join(_AC)),
            _segment(0xDA, bytes((len(factors), *selectors, 0, 63, 0))),
            scan,
            b"\xff\xd9",
        )
    )


def assert_tensorflows_pixels(jpeg: bytes) -> None:
    expected = tf.image.decode_jpeg(jpeg).numpy()
    pixels = cmyk.decode_rgb(jpeg)
    assert (pixels.shape, pixels.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("encoder", INK_ENCODERS)
def test_pixels_are_tensorflows(encoder: str) -> None:
    for height, width in SIZES:
        assert_tensorflows_pixels(INK_ENCODERS[encoder](height, width))


@pytest.mark.parametrize("adobe_transform", [None, 0, 2])
@pytest.mark.parametrize(
    "factors",
    [
        [(1, 2), (1, 1), (1, 1), (1, 2)],
        [(1, 2), (1, 1), (1, 1), (1, 1)],
        [(2, 2), (2, 1), (1, 2), (1, 1)],
        [(2, 2), (1, 2), (1, 2), (1, 1)],
        [(2, 1), (1, 1), (2, 1), (1, 1)],
        [(1, 1), (1, 1), (1, 1), (2, 2)],
        [(3, 1), (1, 1), (1, 1), (3, 1)],
        [(1, 4), (1, 1), (1, 1), (1, 2)],
        [(4, 1), (1, 1), (1, 1), (4, 1)],
        [(2, 2), (2, 2), (1, 1), (1, 1)],
    ],
    ids=str,
)
def test_pixels_of_any_chroma_sampling_are_tensorflows(
    factors: list[tuple[int, int]], adobe_transform: int | None
) -> None:
    for height, width in SIZES:
        assert_tensorflows_pixels(sampled(height, width, factors, adobe_transform=adobe_transform))


@pytest.mark.parametrize("encoder", ["YCCK 420", "CMYK by Pillow 420"])
def test_data_that_ends_early_has_no_pixels(encoder: str) -> None:
    jpeg = INK_ENCODERS[encoder](33, 47)
    for size in (2, 200, len(jpeg) // 2):
        with pytest.raises((OSError, ValueError, SyntaxError)):
            cmyk.decode_rgb(jpeg[:size])


def test_what_is_no_jpeg_has_no_pixels() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="a PNG is no JPEG"):
        cmyk.decode_rgb(buffer.getvalue())


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_unknown_adobe_transform_is_ycck(subsampling: int) -> None:
    assert_tensorflows_pixels(by_pillow(subsampling, adobe_transform=1)(33, 47))
