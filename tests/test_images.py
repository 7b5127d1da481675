"""What an image is, beside Pillow; and the conversion to RGB, byte for byte beside TFDS."""

from __future__ import annotations

import io
import re
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tensorflow_datasets.core.utils import image_utils

from beam_imagenet import cmyk
from beam_imagenet.errors import ImageError
from beam_imagenet.images import MAX_PIXELS, ImageFacts, probe, to_rgb_jpeg
from tests.test_cmyk import INK_ENCODERS, SIZES, sampled

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


def exif() -> bytes:
    block = Image.Exif()
    block[0x0112] = 6  # rotated, which changes no header
    block[0x010E] = "d" * 60_000
    return block.tobytes()


JPEG = saved("RGB", "JPEG")
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


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


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


def with_size(png: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header."""
    return png[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + png[24:29]) + png[33:]


def behind_first_scan(jpeg: bytes, segment: bytes) -> bytes:
    """The JPEG with a segment after its only scan."""
    return jpeg[:-2] + segment + jpeg[-2:]


PNG = saved("RGB", "PNG")
LINES = b"\xff\xdc\0\4\0\x09"


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


@pytest.mark.parametrize("junk", [b"\0", b"\x12\x34\x56", b"\xff\0"])
def test_probe_passes_over_stray_bytes_as_decoders_do(junk: bytes) -> None:
    data = JPEG[:20] + junk + JPEG[20:]
    assert tf.image.decode_jpeg(data).shape == (9, 13, 3)
    assert Image.open(io.BytesIO(data)).size == (13, 9)
    assert probe(data) == probe(JPEG)


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
