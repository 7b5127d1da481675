"""The conversion to RGB, byte for byte beside TFDS, and what cannot be converted."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tensorflow_datasets.core.utils import image_utils

from beam_imagenet import cmyk
from beam_imagenet.errors import ImageError
from beam_imagenet.images import ImageFacts, probe, to_rgb_jpeg
from tests.pictures import (
    LINES,
    PNG,
    behind_first_scan,
    chunk,
    saved,
    with_frame,
    with_size,
)
from tests.test_cmyk import INK_ENCODERS, SIZES


@pytest.mark.parametrize("encoder", INK_ENCODERS)
def test_a_jpeg_of_four_inks_becomes_tfdss_jpeg(encoder: str) -> None:
    for height, width in SIZES:
        data = INK_ENCODERS[encoder](height, width)
        converted = to_rgb_jpeg(data)
        assert converted == image_utils.jpeg_cmyk_to_rgb(data)
        assert probe(converted) == ImageFacts("JPEG", width, height, 3)


def png(depth: int, color_type: int, *extra: bytes, height: int = 9, width: int = 13) -> bytes:
    """A PNG of random samples, of a bit depth and colour type that Pillow may not write."""
    random = np.random.default_rng((depth, color_type))
    row = -(-width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type] // 8)
    rows = b"".join(b"\0" + random.bytes(row) for _ in range(height))
    palette = chunk(b"PLTE", random.bytes(3 << depth)) if color_type == 3 else b""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)),
            palette,
            *extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


DEEP = np.random.default_rng(0).integers(0, 1 << 16, (9, 13, 4), dtype=np.uint16)
PNGS = {
    **{f"gray of {depth} bits": png(depth, 0) for depth in (1, 2, 4, 8, 16)},
    **{f"gray of {depth} bits, one clear": png(depth, 0, chunk(b"tRNS", b"\0\1")) for depth in (1, 8, 16)},
    **{f"palette of {depth} bits": png(depth, 3) for depth in (1, 2, 4, 8)},
    **{f"palette of {depth} bits, clear": png(depth, 3, chunk(b"tRNS", b"\0\x80")) for depth in (1, 8)},
    **{f"RGB of {depth} bits": png(depth, 2) for depth in (8, 16)},
    "RGB, one clear": png(8, 2, chunk(b"tRNS", b"\0\1" * 3)),
    **{f"gray and alpha of {depth} bits": png(depth, 4) for depth in (8, 16)},
    **{f"RGBA of {depth} bits": png(depth, 6) for depth in (8, 16)},
    "RGB with a gamma": png(8, 2, chunk(b"gAMA", struct.pack(">I", 100_000))),
    "one pixel": png(8, 2, height=1, width=1),
    "Pillow's RGB": saved("RGB", "PNG", height=33, width=47),
    "Pillow's palette": saved("P", "PNG", height=33, width=47),
    **{f"deep, {count} channels": tf.io.encode_png(DEEP[..., :count]).numpy() for count in (1, 2, 3, 4)},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("case", PNGS)
def test_a_png_becomes_tfdss_jpeg(case: str) -> None:
    converted = to_rgb_jpeg(PNGS[case])
    assert converted == image_utils.png_to_jpeg(PNGS[case])
    assert probe(converted).components == 3


CYAN = INK_ENCODERS["CMYK by Pillow 420"](33, 47)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html>",
        PNGS["Pillow's RGB"][:30],
        PNGS["Pillow's RGB"][:200],
        PNGS["Pillow's RGB"].replace(b"IDAT", b"iDAT"),
        re.sub(b"(?s)....IDAT", b"\0\0\0\0IDAT", PNGS["Pillow's RGB"]),
        saved("RGB", "GIF"),
        CYAN[:200],
        CYAN[: len(CYAN) // 2],
        CYAN.replace(b"\xff\xdb", b"\xff\xeb"),
        INK_ENCODERS["YCCK 420"](33, 47)[:-300],
    ],
    ids=[
        "empty",
        "html",
        "png header",
        "half a png",
        "png without data",
        "png with a broken chunk",
        "gif",
        "jpeg header",
        "half a jpeg",
        "jpeg without tables",
        "ycck cut off",
    ],
)
def test_what_cannot_be_decoded_is_an_image_error(data: bytes) -> None:
    with pytest.raises(ImageError, match="has to be converted to RGB"):
        to_rgb_jpeg(data)


@given(
    data=st.data(),
    base=st.sampled_from([CYAN, INK_ENCODERS["YCCK 444"](9, 9), PNGS["RGBA of 8 bits"]]),
)
@settings(deadline=None, max_examples=200)
def test_damage_gives_an_image_or_an_image_error(data: st.DataObject, base: bytes) -> None:
    # Not in the sizes in a header: an image of billions of pixels is a test of its own.
    position = data.draw(st.integers(len(base) // 2, len(base) - 1))
    damaged = base[:position] + data.draw(st.binary(max_size=8)) + base[position + 4 :]
    try:
        converted = to_rgb_jpeg(damaged)
    except ImageError:
        return
    assert probe(converted).components == 3


def refuses_to_decode(*_: object, **__: object) -> None:
    raise AssertionError("it is decoded")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (with_frame(saved("CMYK", "JPEG"), height=65_000, width=65_000), "claims 65,000 x 65,000"),
        (
            with_frame(saved("CMYK", "JPEG"), height=13_000, width=13_000),
            "cannot hold 13,000 x 13,000",
        ),
        (with_size(PNG, 65_000, 65_000), "claims 65,000 x 65,000"),
        (behind_first_scan(with_frame(CYAN, height=0), LINES), "behind its first scan"),
    ],
)
def test_what_a_header_claims_costs_no_memory(
    data: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cmyk, "decode_rgb", refuses_to_decode)
    monkeypatch.setattr(Image, "open", refuses_to_decode)
    with pytest.raises(ImageError, match=what):
        to_rgb_jpeg(data)


def test_a_second_png_header_cannot_claim_gigapixels() -> None:
    bomb = PNG[:33] + with_size(PNG, 65_000, 65_000)[8:]
    with pytest.raises(ImageError):
        to_rgb_jpeg(bomb)


def tensorflow_refuses(data: bytes) -> bool:
    try:
        tf.image.decode_image(data)
    except tf.errors.InvalidArgumentError:
        return True
    return False


@pytest.mark.parametrize("encoder", INK_ENCODERS)
def test_a_cmyk_jpeg_cut_off_anywhere_is_an_image_error_as_with_tensorflow(encoder: str) -> None:
    whole = INK_ENCODERS[encoder](33, 47)
    for missing in (1, 2, 3, 4, 10, 100, len(whole) // 2, len(whole) * 3 // 4):
        cut = whole[:-missing]
        assert tensorflow_refuses(cut)
        with pytest.raises(ImageError):
            to_rgb_jpeg(cut)


@pytest.mark.parametrize("encoder", ["YCCK 420", "CMYK by Pillow 444", "CMYK by Pillow 420"])
def test_damage_that_swallows_the_end_mark_is_an_image_error_as_with_tensorflow(
    encoder: str,
) -> None:
    whole = INK_ENCODERS[encoder](33, 47)
    # A segment that claims more bytes than there are, in place of the last ones of the scan.
    damaged = whole[:-12] + b"\xff\xe5\xff\xff" + whole[-8:]
    assert tensorflow_refuses(damaged)
    with pytest.raises(ImageError, match="no end-of-image mark"):
        to_rgb_jpeg(damaged)


@pytest.mark.parametrize("encoder", ["YCCK 420", "CMYK by Pillow 444", "CMYK by Pillow 420"])
def test_blocks_that_tensorflow_makes_up_are_its_own(encoder: str) -> None:
    whole = INK_ENCODERS[encoder](33, 47)
    for shortened in (whole[: len(whole) * 3 // 4] + b"\xff\xd9", whole + b"more"):
        assert to_rgb_jpeg(shortened) == image_utils.jpeg_cmyk_to_rgb(shortened)


@pytest.mark.parametrize("missing", [1, 4, 5, 12, 13, 16, 40, 200])
def test_a_png_cut_off_anywhere_is_an_image_error_as_with_tensorflow(missing: int) -> None:
    cut = PNGS["Pillow's RGB"][:-missing]
    assert tensorflow_refuses(cut)
    with pytest.raises(ImageError):
        to_rgb_jpeg(cut)


def test_a_png_whose_checksum_fails_is_an_image_error_as_with_tensorflow() -> None:
    whole = PNGS["Pillow's RGB"]
    checksum = whole.index(b"IEND") - 5  # the last byte of the pixels' own
    damaged = whole[:checksum] + bytes((whole[checksum] ^ 1,)) + whole[checksum + 1 :]
    assert tensorflow_refuses(damaged)
    with pytest.raises(ImageError, match="checksum of its chunk at byte 33 fails"):
        to_rgb_jpeg(damaged)


TWICE_ANIMATED = PNG[:33] + chunk(b"acTL", bytes(8)) + PNG[33:]


@pytest.mark.filterwarnings("error")
def test_a_conversion_prints_and_warns_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(TWICE_ANIMATED))
    assert to_rgb_jpeg(TWICE_ANIMATED) == to_rgb_jpeg(PNG)
    to_rgb_jpeg(PNGS["palette of 8 bits, clear"])
    to_rgb_jpeg(CYAN[: len(CYAN) // 2] + b"\xff\xd9")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [ZeroDivisionError, AssertionError, KeyError, OverflowError])
def test_whatever_a_codec_raises_is_an_image_error(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: bytes) -> NDArray[np.uint8]:
        raise error("stumbled")

    monkeypatch.setattr(cmyk, "decode_rgb", stumble)
    with pytest.raises(ImageError, match="stumbled"):
        to_rgb_jpeg(CYAN)


def test_short_memory_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(_: bytes) -> NDArray[np.uint8]:
        raise MemoryError

    monkeypatch.setattr(cmyk, "decode_rgb", stumble)
    with pytest.raises(MemoryError):
        to_rgb_jpeg(CYAN)


def test_an_image_too_wide_for_a_jpeg_is_an_image_error() -> None:
    with pytest.raises(ImageError):
        to_rgb_jpeg(saved("L", "PNG", width=65_501, height=1))


def test_a_damaged_header_is_told_without_an_address_in_memory() -> None:
    with pytest.raises(ImageError) as caught:
        to_rgb_jpeg(saved("RGB", "PNG")[:30])
    assert "object at 0x" not in str(caught.value)
