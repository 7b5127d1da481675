"""What an image is, beside Pillow; and what is none."""

from __future__ import annotations

import io
import struct
import time
from typing import Any

import pytest
import simplejpeg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beam_imagenet.errors import ImageError
from beam_imagenet.images import MAX_PIXELS, ImageFacts, probe
from tests.pictures import (
    CHANNELS,
    JPEG,
    LINES,
    PNG,
    behind_first_scan,
    chunk,
    exif,
    pixels,
    saved,
    with_frame,
    with_size,
)
from tests.test_cmyk import INK_ENCODERS, sampled

WIDE = struct.pack(">BBH", 0xFF, 0xE2, 65_535) + b"\xff\xc0" * 32_766 + b"\xff"
PROBED = {
    "baseline": JPEG,
    "progressive": saved("RGB", "JPEG", progressive=True),
    "gray": saved("L", "JPEG"),
    "CMYK": saved("CMYK", "JPEG"),
    "progressive CMYK": saved("CMYK", "JPEG", progressive=True),
    "EXIF": saved("RGB", "JPEG", exif=exif()),
    "ICC profile": saved("RGB", "JPEG", icc_profile=bytes(200_000)),
    "comment": saved("RGB", "JPEG", comment=b"\xff\xc0" * 20_000),
    "restart intervals": saved("RGB", "JPEG", restart_marker_rows=1),
    "fill bytes": JPEG.replace(b"\xff\xdb", b"\xff\xff\xff\xdb").replace(b"\xff\xc0", b"\xff\xff\xc0"),
    "markers without length": JPEG[:20] + b"\xff\xd0\xff\xd7" + JPEG[20:],
    "segment of full length": JPEG[:2] + WIDE + JPEG[2:],
    "2592 x 3888": saved("RGB", "JPEG", height=3888, width=2592, quality=1),
    "500 x 33": saved("RGB", "JPEG", height=33, width=500),
    "65,500 wide": saved("L", "JPEG", height=1, width=65_500),
    "one pixel": saved("RGB", "JPEG", height=1, width=1),
}  # fmt: skip


@pytest.mark.parametrize("case", PROBED)
def test_a_jpegs_facts_are_pillows(case: str) -> None:
    data = PROBED[case]
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageFacts("JPEG", image.width, image.height, CHANNELS[image.mode])
    assert probe(data) == probe(memoryview(data)) == expected
    assert expected.needs_fix == ("CMYK" if expected.components == 4 else None)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "I;16", "RGB", "RGBA"])
def test_a_pngs_facts_are_its_size(mode: str) -> None:
    image = Image.new(mode.replace("PA", "P"), (500, 33))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **({"transparency": 0} if mode == "PA" else {}))
    facts = probe(buffer.getvalue())
    assert (facts.format, facts.width, facts.height) == ("PNG", 500, 33)
    assert facts.needs_fix == "PNG"


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
@pytest.mark.parametrize("size", [(1, 1), (33, 47)])
def test_no_chroma_sampling_of_an_rgb_jpeg_asks_for_a_fix(
    subsampling: str, size: tuple[int, int]
) -> None:
    colorspace = "GRAY" if subsampling == "Gray" else "RGB"
    image = pixels(*size, channels=1 if subsampling == "Gray" else 3)
    jpeg = simplejpeg.encode_jpeg(image, colorspace=colorspace, colorsubsampling=subsampling)
    assert probe(jpeg).needs_fix is None


@pytest.mark.parametrize("first", [(4, 2), (2, 4), (3, 1), (1, 3), (1, 2)])
def test_a_jpeg_that_turbojpeg_has_no_name_for_asks_for_no_fix(first: tuple[int, int]) -> None:
    chroma = (1, 1) if first != (1, 2) else (1, 2)
    jpeg = sampled(33, 47, [first, chroma, (1, 1)])
    assert tf.image.decode_jpeg(jpeg).shape == (33, 47, 3)
    with pytest.raises((ValueError, KeyError)):
        simplejpeg.decode_jpeg(jpeg)
    assert probe(jpeg) == ImageFacts("JPEG", 47, 33, 3)
    assert probe(jpeg).needs_fix is None


@pytest.mark.parametrize("encoder", INK_ENCODERS)
def test_every_jpeg_of_four_inks_asks_for_a_fix(encoder: str) -> None:
    assert probe(INK_ENCODERS[encoder](5, 3)) == ImageFacts("JPEG", 3, 5, 4)
    assert probe(INK_ENCODERS[encoder](5, 3)).needs_fix == "CMYK"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "it is empty"),
        (b"\xff", "neither a JPEG nor a PNG (it starts with ff)"),
        (b"\xff\xd8", "without a frame header"),
        (saved("RGB", "GIF"), "neither a JPEG nor a PNG (it starts with 47 49 46 38"),
        (saved("RGB", "BMP"), "neither a JPEG nor a PNG (it starts with 42 4d"),
        (saved("RGB", "TIFF"), "neither a JPEG nor a PNG"),
        (saved("RGB", "WEBP"), "neither a JPEG nor a PNG"),
        (b"<!DOCTYPE html>", "neither a JPEG nor a PNG (it starts with 3c 21 44 4f"),
        (bytes(1000), "neither a JPEG nor a PNG (it starts with 00 00"),
        (PNG[:20], "a PNG that ends inside its header"),
        (PNG[:32], "a PNG that ends inside its header"),
        (PNG[:7], "neither a JPEG nor a PNG"),
        (JPEG[: JPEG.index(b"\xff\xc0")], "without a frame header"),
        (JPEG[: JPEG.index(b"\xff\xc0") + 9], "without a frame header"),
        (JPEG[: JPEG.index(b"\xff\xc0") + 18], "ends inside its frame header"),
        (with_frame(JPEG, components=0), "does not list its colour components"),
        (with_frame(JPEG, components=0, length=8), "does not list its colour components"),
        (with_frame(JPEG, length=16), "does not list its colour components"),
        (with_frame(JPEG, components=4), "does not list its colour components"),
        (with_frame(JPEG, length=0), "does not list its colour components"),
        (with_frame(JPEG, width=0), "claims 0 x 9 pixels"),
        (with_frame(JPEG, height=0), "claims 13 x 0 pixels"),
        (with_frame(JPEG, height=0) + LINES, "claims 13 x 0 pixels"),  # after its end
        (behind_first_scan(with_frame(JPEG, height=0), LINES[:5] + b"\0"), "claims 13 x 0 pixels"),
        (behind_first_scan(with_frame(JPEG, height=0), b"\xff\xdd" + LINES[2:]), "13 x 0 pixels"),
        (behind_first_scan(with_frame(JPEG, height=0), LINES)[:-4], "claims 13 x 0 pixels"),
        (with_frame(JPEG, width=65_535, height=65_535), "claims 65,535 x 65,535 pixels"),
        (PNG.replace(b"IHDR", b"iHDR"), "does not start with its header (IHDR)"),
        (PNG[:8] + chunk(b"tEXt", b"k\0t") + PNG[8:], "does not start with its header (IHDR)"),
        (with_size(PNG, 0, 9), "claims 0 x 9 pixels"),
        (with_size(PNG, 13, 0), "claims 13 x 0 pixels"),
        (with_size(PNG, 2**32 - 1, 2**32 - 1), "claims 4,294,967,295 x 4,294,967,295 pixels"),
        (JPEG[:2] + b"\xff\xd9\0\4\0\0" + JPEG[2:], "without a frame header"),  # its end
        (JPEG[:2] + b"\xff\xda\0\4\0\0" + JPEG[2:], "without a frame header"),  # a scan
        (JPEG[:2] + struct.pack(">BBH", 0xFF, 0xE0, 1) + JPEG[2:], "without a frame header"),
        (JPEG[:2] + struct.pack(">BBH", 0xFF, 0xE0, 60_000) + JPEG[2:], "without a frame header"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_told(data: bytes, what: str) -> None:
    with pytest.raises(ImageError) as caught:
        probe(data)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    "marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCF]
)
def test_every_kind_of_frame_is_one(marker: int) -> None:
    jpeg = JPEG.replace(b"\xff\xc0", bytes((0xFF, marker)))
    assert probe(jpeg) == ImageFacts("JPEG", 13, 9, 3)


@pytest.mark.parametrize(
    ("precision", "more"), [(12, b""), (2, b""), (8, b"\4\x11\0"), (8, b"\4\x11\0\5\x11\0")]
)
def test_what_is_legal_but_rare_is_an_image(precision: int, more: bytes) -> None:
    facts = probe(with_frame(JPEG, precision=precision, more=more))
    assert facts == ImageFacts("JPEG", 13, 9, 3 + len(more) // 3)


def test_two_components_are_an_image() -> None:
    jpeg = sampled(33, 47, [(1, 1), (1, 1)])
    assert probe(jpeg) == ImageFacts("JPEG", 47, 33, 2)
    assert probe(jpeg).needs_fix is None


def test_a_height_behind_the_first_scan_counts_and_is_odd() -> None:
    jpeg = behind_first_scan(with_frame(JPEG, height=0), LINES)
    facts = probe(jpeg)
    assert (facts.width, facts.height) == (13, 9)
    assert "behind its first scan (DNL)" in str(facts.oddity)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.image.decode_jpeg(jpeg)


def test_a_frame_header_with_more_than_its_components_is_odd() -> None:
    jpeg = with_frame(JPEG, more=b"\0")
    facts = probe(jpeg)
    assert (facts.width, facts.height, facts.components) == (13, 9, 3)
    assert facts.oddity == "its frame header is longer than its list of colour components"
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.image.decode_jpeg(jpeg)


def test_more_pixels_than_its_bytes_can_hold_are_odd() -> None:
    facts = probe(with_frame(JPEG, width=1024, height=len(JPEG)))
    assert facts.oddity is None
    facts = probe(with_frame(JPEG, width=1024, height=len(JPEG) + 1))
    assert facts.oddity == f"its {len(JPEG)} bytes cannot hold 1,024 x {len(JPEG) + 1} pixels"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_the_plainest_image_holds_its_pixels(options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 3000)).save(buffer, "JPEG", quality=1, optimize=True, **options)
    assert probe(buffer.getvalue()) == ImageFacts("JPEG", 2000, 3000, 3)


def test_more_pixels_than_pillow_decodes_are_no_image() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    assert probe(with_size(PNG, MAX_PIXELS, 1)).width == MAX_PIXELS
    with pytest.raises(ImageError, match="pixels, as no photograph has"):
        probe(with_size(PNG, MAX_PIXELS + 1, 1))
    padded = bytes(1 << 18)
    assert (
        probe(with_frame(JPEG, height=MAX_PIXELS // 65_535, width=65_535) + padded).oddity is None
    )
    with pytest.raises(ImageError, match="pixels, as no photograph has"):
        probe(with_frame(JPEG, height=MAX_PIXELS // 65_535 + 1, width=65_535) + padded)


@pytest.mark.parametrize("case", PROBED)
def test_the_header_stops_behind_the_components(case: str) -> None:
    data = PROBED[case]
    stop = probe(data).header_stop
    rest = data[stop:].lstrip(b"\xff")
    assert rest[0] in (0xC4, 0xDA, 0xDB, 0xDD)  # a table, an interval or a scan comes next
    assert data[stop : stop + 1] == b"\xff"


@pytest.mark.parametrize("junk", [b"\xff", b"\xff\0", b"\xff\xd0", b"\0", b"\xff\xe0\0\2"])
def test_headers_without_end_take_linear_time(junk: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(ImageError):
        probe(memoryview(b"\xff\xd8" + junk * (4_000_000 // len(junk))))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("marker", [0xC4, 0xC8, 0xCC])
def test_tables_with_codes_like_frames_are_none(marker: int) -> None:
    table = struct.pack(">BBH", 0xFF, marker, 12) + bytes(10)
    assert probe(JPEG[:2] + table + JPEG[2:]) == probe(JPEG)


def facts_or_error(data: bytes) -> ImageFacts | ImageError:
    try:
        return probe(data)
    except ImageError as error:
        return error


@given(
    st.binary(max_size=100),
    st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]),
)
@settings(deadline=None, max_examples=500)
def test_any_bytes_give_facts_or_an_image_error(rest: bytes, start: bytes) -> None:
    facts_or_error(start + rest)


@given(
    stop=st.integers(0, 700),
    changes=st.lists(st.tuples(st.integers(0, 699), st.integers(0, 255)), max_size=4),
)
@settings(deadline=None, max_examples=500)
def test_a_damaged_jpeg_gives_facts_or_an_image_error(
    stop: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(JPEG)
    for position, byte in changes:
        data[min(position, len(data) - 1)] = byte
    facts_or_error(bytes(data[:stop]))


@pytest.mark.parametrize("case", ["baseline", "progressive", "EXIF", "fill bytes"])
def test_a_jpeg_cut_off_anywhere_gives_its_facts_or_an_error(case: str) -> None:
    whole = probe(PROBED[case])
    outcomes = [facts_or_error(PROBED[case][:size]) for size in range(0, len(PROBED[case]), 7)]
    assert isinstance(outcomes[0], ImageError)
    assert all(outcome == whole for outcome in outcomes if isinstance(outcome, ImageFacts))


@pytest.mark.parametrize("junk", [b"\0", b"\x12\x34\x56", b"\xff\0"])
def test_probe_passes_over_stray_bytes_as_decoders_do(junk: bytes) -> None:
    data = JPEG[:20] + junk + JPEG[20:]
    assert tf.image.decode_jpeg(data).shape == (9, 13, 3)
    assert Image.open(io.BytesIO(data)).size == (13, 9)
    assert probe(data) == probe(JPEG)
