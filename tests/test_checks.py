"""What is suspect: end marks by literal tables, pixels beside the full decode of libjpeg."""

from __future__ import annotations

import io
import struct

import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beam_imagenet import checks
from beam_imagenet.checks import suspicion
from beam_imagenet.drawing import Painter, make_painter
from beam_imagenet.errors import ImageError
from beam_imagenet.images import probe
from beam_imagenet.model import CHECK_LEVELS
from tests.pictures import JPEG, LINES, PNG, behind_first_scan, chunk, saved, with_frame
from tests.test_cmyk import INK_ENCODERS, sampled
from tests.test_conversion import PNGS, TWICE_ANIMATED
from tests.test_images import PROBED


@pytest.fixture(scope="module")
def painter() -> Painter:
    return make_painter(seed=1, image_bytes=6000)


def found(data: bytes, level: str) -> str | None:
    """What is suspect, the same for bytes and for a view of them."""
    reason = suspicion(data, probe(data), level=level)
    view = memoryview(bytearray(data))
    assert suspicion(view, probe(view), level=level) == reason
    return reason


def exif_with(thumbnail: bytes) -> bytes:
    """An APP1 segment with a whole JPEG, its end mark included."""
    content = b"Exif\0\0" + thumbnail
    return struct.pack(">BBH", 0xFF, 0xE1, len(content) + 2) + content


THUMBNAIL = saved("RGB", "JPEG", height=3, width=4)
WITH_THUMBNAIL = JPEG[:2] + exif_with(THUMBNAIL) + JPEG[2:]
# Segments between the frame header and the scan are legal.
SCAN = JPEG.index(b"\xff\xda")
LATE_THUMBNAIL = JPEG[:SCAN] + exif_with(THUMBNAIL) + JPEG[SCAN:]
RESTARTS = saved("RGB", "JPEG", height=60, restart_marker_rows=1)
HUFFMAN = JPEG.index(b"\xff\xc4") + 5
GOOD = {
    **PROBED,
    "restarts": RESTARTS,
    **{f"PNG, {name}": data for name, data in PNGS.items()},
    **{name: encode(33, 47) for name, encode in INK_ENCODERS.items()},
    "thumbnail": WITH_THUMBNAIL,
    "late thumbnail": LATE_THUMBNAIL,
    "fill bytes before the end": JPEG[:-2] + b"\xff\xff" + JPEG[-2:],
}


@pytest.mark.parametrize("level", CHECK_LEVELS)
@pytest.mark.parametrize("case", GOOD)
def test_a_good_image_is_not_suspect(case: str, level: str) -> None:
    assert found(GOOD[case], level) is None


@pytest.mark.parametrize("level", CHECK_LEVELS)
def test_a_photograph_is_not_suspect(painter: Painter, level: str) -> None:
    for number in range(40):
        assert found(painter.photograph(f"{number}"), level) is None
    assert found(painter.cmyk("a"), level) is None
    assert found(painter.cmyk("b", ycck=True), level) is None
    assert found(painter.png("c"), level) is None


PROGRESSIVE = PROBED["progressive"]
NO_MARK, NO_CHUNK = "it has no end-of-image mark", "it has no end mark (IEND)"
SUSPECT = {
    "no end mark": (JPEG[:-2], NO_MARK),
    "half an end mark": (JPEG[:-1], NO_MARK),
    "another last byte": (JPEG[:-1] + b"\xd8", NO_MARK),
    "another last byte but one": (JPEG[:-2] + b"\xfe\xd9", NO_MARK),
    "cut in the scan": (JPEG[:-50], NO_MARK),
    "cut before the scan": (JPEG[:SCAN], NO_MARK),
    "cut behind the frame header": (JPEG[: probe(JPEG).header_stop], NO_MARK),
    "a frame header that ends like an image": (
        with_frame(JPEG, more=b"\4\xff\xd9")[: probe(JPEG).header_stop + 3],
        NO_MARK,
    ),
    "progressive": (PROGRESSIVE[:-2], NO_MARK),
    "progressive, cut after a scan": (PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xda")], NO_MARK),
    "thumbnail": (WITH_THUMBNAIL[:-2], NO_MARK),
    "late thumbnail": (LATE_THUMBNAIL[:-2], NO_MARK),
    "tables like an end mark": (PROBED["comment"].replace(b"\xff\xc0" * 9, b"\xff\xd9" * 9)[:-2], NO_MARK),
    "CMYK": (PROBED["CMYK"][:-2], NO_MARK),
    "one byte more": (JPEG + b"\0", "it has 1 byte after its end-of-image mark"),
    "zeros": (JPEG + bytes(1234), "it has 1,234 bytes after its end-of-image mark"),
    "text": (WITH_THUMBNAIL + b"</html>", "it has 7 bytes after its end-of-image mark"),
    "half another end mark": (JPEG + b"\xff", "it has 1 byte after its end-of-image mark"),
    "text after restarts": (
        RESTARTS + b"text",
        "it has 4 bytes after its end-of-image mark",
    ),
    "a second image that is cut off": (
        JPEG + THUMBNAIL[:-2],
        f"it has {len(THUMBNAIL) - 2} bytes after its end-of-image mark",
    ),
    "another image after half a one": (JPEG[:-50] + THUMBNAIL + b"\0", "it has 1 byte after its"),
    "height behind the scan": (
        behind_first_scan(with_frame(JPEG, height=0), LINES),
        "its height is told behind its first scan (DNL)",
    ),
    "long frame header": (with_frame(JPEG, more=b"\0"), "its frame header is longer"),
    "few bytes": (with_frame(JPEG, height=9_000, width=9_000), "bytes cannot hold 9,000 x 9,000"),
    "PNG without its last chunk": (PNG[:-12], NO_CHUNK),
    "PNG without its last byte": (PNG[:-1], NO_CHUNK),
    "PNG of a header alone": (PNG[:33], NO_CHUNK),
    "PNG and a byte": (PNG + b"\0", "it has 1 byte after its end mark (IEND)"),
    "PNG and text": (PNG + b"t" * 1234, "it has 1,234 bytes after its end mark (IEND)"),
    "two PNGs": (PNG + PNG, f"it has {len(PNG)} bytes after its end mark (IEND)"),
    "PNG with a chunk too long": (PNG[:33] + b"\xff" * 4 + PNG[37:], NO_CHUNK),
}  # fmt: skip


@pytest.mark.parametrize("case", SUSPECT)
def test_what_is_suspect_by_its_end_is_told(case: str) -> None:
    data, reason = SUSPECT[case]
    assert reason in str(found(data, "header"))
    assert str(found(data, "decode")).startswith(str(found(data, "header")))
    assert found(data, "none") is None


CUT = ["baseline", "progressive", "CMYK", "restarts", "thumbnail"]


@pytest.mark.parametrize("case", [*CUT, "PNG, Pillow's RGB", "PNG, palette of 8 bits"])
def test_an_image_cut_off_anywhere_is_bad_or_suspect(case: str) -> None:
    whole = GOOD[case]
    for size in range(len(whole)):
        try:
            facts = probe(whole[:size])
        except ImageError:
            continue
        assert facts == probe(whole)
        reason = suspicion(whole[:size], facts, level="header")
        assert reason == (NO_MARK if facts.format == "JPEG" else NO_CHUNK)


def test_a_cut_behind_a_late_thumbnail_is_found_by_decoding_only() -> None:
    cut = LATE_THUMBNAIL[: SCAN + len(exif_with(THUMBNAIL))]
    assert cut.endswith(b"\xff\xd9")
    assert found(cut, "header") is None
    assert str(found(cut, "decode")).startswith(NO_MARK)


def test_an_image_behind_another_is_found_by_decoding_only() -> None:
    assert found(JPEG + THUMBNAIL, "header") is None
    assert found(JPEG + THUMBNAIL, "decode") == (
        f"it has {len(THUMBNAIL)} bytes after its end-of-image mark"
    )


@pytest.mark.parametrize(
    "factors",
    [
        [(4, 2), (1, 1), (1, 1)],
        [(3, 1), (1, 1), (1, 1)],
        [(2, 4), (1, 1), (1, 1)],
        [(2, 2), (2, 1), (1, 2)],
        [(2, 2), (2, 1), (1, 2), (1, 1)],
        [(1, 1), (1, 1), (1, 1), (2, 2)],
    ],
    ids=str,
)
def test_a_legal_chroma_sampling_that_turbojpeg_refuses_is_not_suspect(
    factors: list[tuple[int, int]],
) -> None:
    jpeg = sampled(33, 47, factors)
    with pytest.raises((ValueError, KeyError)):
        simplejpeg.decode_jpeg(jpeg)
    assert found(jpeg, "decode") is None
    cut = jpeg[: len(jpeg) // 2]
    assert "two decoders complain: " in str(found(cut, "decode"))
    assert "truncated" in str(found(cut, "decode"))


def test_a_chroma_sampling_without_a_name_is_not_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise KeyError(6)  # as some versions do

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    assert found(JPEG, "decode") is None
    assert "two decoders complain: unsupported chroma" in str(found(JPEG[:-50], "decode"))


@pytest.mark.parametrize("transform", [1, 7])
def test_an_unknown_colour_transform_is_no_complaint_about_data(transform: int) -> None:
    jpeg = PROBED["CMYK"]
    adobe = jpeg.index(b"Adobe") + 11
    odd = jpeg[:adobe] + bytes((transform,)) + jpeg[adobe + 1 :]
    with pytest.raises(ValueError, match="Unknown Adobe color transform code"):
        simplejpeg.decode_jpeg(odd, "CMYK", strict=True)
    assert found(odd, "decode") is None


def test_an_unknown_revision_of_jfif_is_no_complaint_about_data() -> None:
    odd = JPEG.replace(b"JFIF\0\1", b"JFIF\0\3")
    with pytest.raises(ValueError, match="unknown JFIF revision"):
        simplejpeg.decode_jpeg(odd, strict=True)
    assert found(odd, "decode") is None


def test_a_damaged_colour_profile_is_no_complaint_about_pixels() -> None:
    odd = PROBED["ICC profile"].replace(b"ICC_PROFILE\0\1", b"ICC_PROFILE\0\0", 1)
    with pytest.raises(ValueError, match="bad ICC marker"):
        simplejpeg.decode_jpeg(odd, strict=True)
    assert found(odd, "decode") is None


DAMAGED = {
    "scan cut and closed": (JPEG[:-50] + JPEG[-2:], "a decoder complains: Corrupt JPEG data: prem"),
    "scan cut": (JPEG[:-50], f"{NO_MARK}; a decoder complains: Premature end of JPEG file"),
    "stray bytes": (JPEG[:20] + b"junk" + JPEG[20:], "a decoder complains: Corrupt JPEG data: 4 ex"),
    "too many Huffman codes": (
        JPEG[:HUFFMAN] + b"\x0f" * 16 + JPEG[HUFFMAN + 16 :],
        "two decoders complain: ",
    ),
    "no quantisation tables": (JPEG.replace(b"\xff\xdb", b"\xff\xeb"), "two decoders complain: Quantiz"),
    "no scan": (JPEG[:SCAN] + JPEG[-2:], "two decoders complain: "),
    "12 bits": (with_frame(JPEG, precision=12), "two decoders complain: "),
    "7 bits": (with_frame(JPEG, precision=7), "two decoders complain: "),
    "a restart mark lost": (
        RESTARTS.replace(b"\xff\xd0", b"\xff\xd5"),
        "a decoder complains: Corrupt JPEG data: found marker 0xd5 instead of RST0",
    ),
    "PNG, pixels": (PNG[:80] + bytes((PNG[80] ^ 1,)) + PNG[81:], "a decoder complains: broken PNG"),
    "PNG, checksum": (PNG[:-13] + bytes((PNG[-13] ^ 1,)) + PNG[-12:], "a decoder complains: broken PNG"),
    "PNG without pixels": (PNG[:33] + chunk(b"IEND", b""), "a decoder complains: "),
    "PNG of an unknown colour type": (
        PNG[:8] + chunk(b"IHDR", PNG[16:25] + b"\5" + PNG[26:29]) + PNG[33:],
        "a decoder complains: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_that_only_decoding_shows_is_told(case: str) -> None:
    data, reason = DAMAGED[case]
    assert str(found(data, "decode")).startswith(reason)
    assert "object at 0x" not in str(found(data, "decode"))
    assert "tjDecompress" not in str(found(data, "decode"))
    assert found(data, "header") == (NO_MARK if reason.startswith(NO_MARK) else None)


def complains(data: bytes) -> bool:
    """Whether libjpeg complains when it decodes the image in full."""
    try:
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return True
    return False


@given(
    name=st.integers(0, 20).map(str),
    progressive=st.booleans(),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=150)
def test_reduced_decoding_finds_what_full_decoding_finds(
    painter: Painter, name: str, progressive: bool, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(painter.photograph(name))
    if progressive:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).save(buffer, "JPEG", quality=85, progressive=True)
        data = bytearray(buffer.getvalue())
    scan = data.index(b"\xff\xda") + 14
    for place, byte in changes:
        data[scan + int(place * (len(data) - scan - 3))] = byte
    assert (found(bytes(data), "decode") is not None) == complains(bytes(data))


BASES = [
    JPEG,
    PROGRESSIVE,
    WITH_THUMBNAIL,
    PROBED["CMYK"],
    INK_ENCODERS["CMYK by Pillow 420"](9, 13),
    sampled(9, 13, [(2, 2), (2, 1), (1, 2)]),
    PNG,
    PNGS["palette of 8 bits, clear"],
    TWICE_ANIMATED,
]


def assert_words_or_nothing(data: bytes) -> None:
    """Only ImageError comes out of `probe`, and nothing but a sentence or None out of `suspicion`."""
    try:
        facts = probe(data)
    except ImageError:
        return
    for level in CHECK_LEVELS:
        reason = suspicion(data, facts, level=level)
        assert reason is None or (reason and "\n" not in reason)


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", JPEG[:SCAN], PNG[:33], PNG[:41]])
)
@settings(deadline=None, max_examples=400)
def test_any_bytes_give_words_or_an_image_error(rest: bytes, start: bytes) -> None:
    assert_words_or_nothing(start + rest)


@given(
    base=st.sampled_from(BASES),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
@settings(deadline=None, max_examples=600)
def test_damage_gives_words_or_an_image_error(
    base: bytes, cut: float, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(base)
    for place, byte in changes:
        data[int(place * (len(data) - 1))] = byte
    assert_words_or_nothing(bytes(data))
    assert_words_or_nothing(bytes(data[: int(cut * len(data))]))


@pytest.mark.filterwarnings("error")
def test_decoding_prints_and_warns_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for data, _ in [*DAMAGED.values(), *SUSPECT.values(), (TWICE_ANIMATED, "")]:
        suspicion(data, probe(data), level="decode")
    assert suspicion(TWICE_ANIMATED, probe(TWICE_ANIMATED), level="decode") is None
    assert capfd.readouterr() == ("", "")


def test_pixels_that_its_bytes_cannot_hold_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("it is decoded")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    claims = with_frame(PROBED["baseline"], height=13_000, width=13_000)
    assert "cannot hold 13,000 x 13,000 pixels" in str(found(claims, "decode"))


def test_a_header_is_looked_at_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "simplejpeg", None)
    monkeypatch.setattr(checks, "Image", None)
    assert found(JPEG, "header") is None
    assert found(PNG, "header") is None


@pytest.mark.parametrize("data", [JPEG, PNG])
def test_short_memory_is_no_fault_of_the_image(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(simplejpeg, "decode_jpeg", stumble)
    monkeypatch.setattr(Image, "open", stumble)
    with pytest.raises(MemoryError):
        suspicion(data, probe(data), level="decode")
