"""The walk over tar headers refuses damage and what is no tar, says where, and reads little of it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import re
import tarfile
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_imagenet.errors import ArchiveError
from beam_imagenet.tar import walk
from tests.tars import (
    END_MARK,
    FORMATS,
    LONG,
    SIZES,
    Counting,
    Format,
    InMemory,
    assert_bounded,
    extended,
    filled,
    header,
    members_of,
    pax_record,
    tar_of,
)

sizes = st.sampled_from(SIZES)


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_a_changed_header_byte_never_changes_the_members(format: Format) -> None:
    """Every bit of every header block, those of extended headers included."""
    content = tar_of([("a", filled(513)), (LONG, filled(3)), ("c", b"")], format=format)
    whole = members_of(content)
    blocks = [
        start
        for member in whole
        for start in range(member.start, member.offset, 512)
        if content[start + 257 : start + 262] == b"ustar"
    ]
    assert len(blocks) == 3 + (format != tarfile.USTAR_FORMAT)
    harmless = set()
    for start, position, bit in itertools.product(blocks, range(512), range(8)):
        damaged = bytearray(content)
        damaged[start + position] ^= 1 << bit
        try:
            assert members_of(bytes(damaged)) == whole
        except ArchiveError:
            continue
        harmless.add(position)
    # Another spelling of the same checksum: a space for a zero, or for a NUL at its end.
    assert harmless <= set(range(148, 156))


@given(position=st.integers(0, 511), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=300)
def test_a_replaced_header_byte_never_changes_the_members(position: int, byte: int) -> None:
    # Bytes over 127, because a checksum may take them as signed.
    whole = header(b"\xc3\xa4" * 9, size=3) + b"abc".ljust(512, b"\0") + END_MARK
    damaged = whole[:position] + bytes((byte,)) + whole[position + 1 :]
    try:
        assert members_of(damaged) == members_of(whole)
    except ArchiveError:
        assert byte != whole[position]


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_an_archive_cut_off_anywhere_is_refused_or_whole(format: Format) -> None:
    content = tar_of([("a", filled(513)), (LONG, filled(3)), ("c", b"")], format=format)
    whole = members_of(content)
    for size in range(len(content)):
        try:
            found = members_of(content[:size])
        except ArchiveError:
            assert size % 512 or size <= whole[-1].stop
        else:
            assert found == whole
            assert size > whole[-1].stop


def test_a_tar_in_a_tar_may_end_between_members_but_is_suspect() -> None:
    content = tar_of([("a", filled(513)), ("b", b"2")])
    first, second = members_of(content)
    suspicions: list[str] = []
    assert members_of(content, suspicions=suspicions) == [first, second]
    assert not suspicions
    file = InMemory(filled(700) + content[: second.stop])
    found = list(
        walk(file, start=700, stop=700 + second.stop, inner="n.tar", suspicions=suspicions)
    )
    assert [member.name for member in found] == [b"a", b"b"]
    assert suspicions == [
        "n.tar in memory.tar (at byte 700) has no end mark: it may have been cut off between two "
        "members before it was packed"
    ]
    with pytest.raises(ArchiveError, match=r"at byte 2,560, .*cut off between two members"):
        members_of(content[: second.stop])


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", filled(1000))
    return buffer.getvalue()


FIRST = tar_of([("first", b"1")])[:1024]
PAX_PATH = extended(b"x", pax_record(b"path", b"second"))
PAX_SPARSE = extended(
    b"x", pax_record(b"GNU.sparse.major", b"1") + pax_record(b"GNU.sparse.name", b"second")
)


def base_256(number: int) -> bytes:
    """A size field as GNU tar writes large numbers."""
    return b"\x80" + number.to_bytes(11, "big")


def pax_size(digits: bytes) -> bytes:
    return extended(b"x", pax_record(b"size", digits))


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 0, "is empty: the archive ends"),
    "one byte": (b"n", 0, "ends inside a header"),
    "second header damaged": (FIRST + b"x" * 512 + END_MARK, 1024, "no tar header"),
    "cut in a header": (FIRST + header(b"second")[:300], 1024, "ends inside a header"),
    "cut in data": (FIRST + header(b"second", size=9000) + END_MARK, 1024, "claims 9,000 bytes at 1,536"),
    "cut in padding": (FIRST + header(b"second", size=3) + b"abc", 1024, "cut off"),
    "bytes after the end": (FIRST + bytes(1000) + b"x" + bytes(23), 2024, "after the archive's end mark"),
    "two tars": (FIRST + END_MARK + FIRST + END_MARK, 2048, "after the archive's end mark"),
    "hard link": (FIRST + header(b"second", kind=b"1"), 1024, "'second' is a hard link"),
    "symbolic link": (FIRST + header(b"second", kind=b"2"), 1024, "a symbolic link"),
    "character device": (FIRST + header(b"second", kind=b"3"), 1024, "a character device"),
    "block device": (FIRST + header(b"second", kind=b"4"), 1024, "a block device"),
    "fifo": (FIRST + header(b"second", kind=b"6"), 1024, "a FIFO"),
    "gnu sparse": (FIRST + header(b"second", kind=b"S"), 1024, "a sparse file"),
    "pax sparse": (FIRST + extended(b"x", pax_record(b"GNU.sparse.major", b"1")), 1024, "a sparse file"),
    "unknown type": (FIRST + header(b"second", kind=b"Z"), 1024, "unknown type"),
    "size of letters": (FIRST + header(b"second", size=b"12 monkeys"), 1024, "its size is no number"),
    "size of nines": (FIRST + header(b"second", size=b"99999999999"), 1024, "its size is no number"),
    "negative size": (FIRST + header(b"second", size=b"-1"), 1024, "'second' claims the size -1"),
    "base-256 negative": (FIRST + header(b"second", size=b"\xff" * 12), 1024, "'second' claims the size "),
    "base-256 of 2**63": (FIRST + header(b"second", size=base_256(1 << 63)), 1024, "the size 9,223,372"),
    "just below 2**62": (FIRST + header(b"second", size=base_256((1 << 62) - 1)), 1024, "claims 4,611,686,0"),
    "endless long name": (FIRST + extended(b"L", filled(1 << 21)) + END_MARK, 1024, "claims 2,097,152"),
    "long name cut off": (FIRST + extended(b"L", filled(600))[:-512], 1024, "claims 600 bytes"),
    "long name of nothing": (FIRST + extended(b"L", b"second") + END_MARK, 1024, "followed by no member"),
    "pax path of nothing": (FIRST + PAX_PATH + END_MARK, 1024, "followed by no member"),
    "pax at the end": (FIRST + PAX_PATH, 1024, "followed by no member"),
    "pax of text": (FIRST + extended(b"x", b"path=second\n"), 1024, "a pax header is damaged"),
    "pax too long": (FIRST + extended(b"x", b"99 path=second\n"), 1024, "a pax header is damaged"),
    "pax too short": (FIRST + extended(b"x", b"9 path=second\n"), 1024, "a pax header is damaged"),
    "pax length 0": (FIRST + extended(b"x", b"0 path=second\n"), 1024, "a pax header is damaged"),
    "pax without equals": (FIRST + extended(b"x", b"11 path is\n"), 1024, "a pax header is damaged"),
    "pax without line feed": (FIRST + extended(b"x", b"11 path=abc"), 1024, "a pax header is damaged"),
    "pax length of digits": (FIRST + extended(b"x", b"9" * 20 + b" a=b\n"), 1024, "a pax header is damaged"),
    "pax length negative": (FIRST + extended(b"x", b"-9 a=b\n"), 1024, "a pax header is damaged"),
    "pax of nothing": (FIRST + extended(b"x", b"") + header(b"second", kind=b"2"), 1536, "a symbolic link"),
    "pax of 4 GiB": (FIRST + header(b"x", size=1 << 32, kind=b"x") + END_MARK, 1024, "claims 4,294,967,296"),
    "pax size of 19 nines": (FIRST + pax_size(b"9" * 19), 1024, "size is no number"),
    "pax size of 18 nines": (FIRST + pax_size(b"9" * 18) + header(b"second"), 2048, "claims 999,999,999,9"),
    "pax size negative": (FIRST + pax_size(b"-3"), 1024, "size is no number"),
    "pax sparse name": (FIRST + PAX_SPARSE, 1024, "member 'second' is a sparse file"),
    "other volume": (FIRST + header(b"second", kind=b"M"), 1024, "began on another volume"),
    "volume label": (FIRST + header(b"second", kind=b"V"), 1024, "'second' is a volume label"),
    "pax size of letters": (FIRST + pax_size(b"few"), 1024, "size is no number"),
}  # fmt: skip


REMEDIES = ("fetch it again", "Fetch it again", "fetch the official one")


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named_with_path_byte_and_remedy(case: str) -> None:
    content, byte, what = REFUSED[case]
    with pytest.raises(ArchiveError, match=re.escape(what)) as caught:
        members_of(content)
    assert str(caught.value).startswith("memory.tar is ")
    assert f" at byte {byte:,}, " in str(caught.value)
    assert str(caught.value).rstrip(".").endswith(REMEDIES)


@pytest.mark.parametrize("case", [case for case in REFUSED if case != "nothing"])
def test_what_is_refused_in_a_tar_in_a_tar_is_named_with_both(case: str) -> None:
    content, byte, _ = REFUSED[case]
    file = InMemory(filled(512) + content)
    with pytest.raises(ArchiveError, match=r"^n.tar in memory.tar \(at byte 512\) is ") as caught:
        list(walk(file, start=512, stop=512 + len(content), inner="n.tar", suspicions=[]))
    assert f" at byte {512 + byte:,}, " in str(caught.value)


OTHER_FORMATS = {
    "gzip": (gzip.compress(bytes(range(256)) * 9), "is gzip-compressed, not a tar: decompress it first"),
    "tar.gz": (gzip.compress(FIRST + END_MARK), "is gzip-compressed, not a tar: decompress it first"),
    "bzip2": (bz2.compress(FIRST), "is bzip2-compressed, not a tar: decompress it first"),
    "xz": (lzma.compress(FIRST), "is xz-compressed, not a tar: decompress it first"),
    "zstd": (b"\x28\xb5\x2f\xfd" + filled(900), "is zstd-compressed, not a tar: decompress it first"),
    "zip": (zipped(), "is a zip archive, not a tar"),
    "empty zip": (b"PK\5\6" + bytes(18), "is an empty zip archive, not a tar"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + filled(900), "is a 7z archive, not a tar"),
    "rar": (b"Rar!\x1a\7\1\0" + filled(900), "is a RAR archive, not a tar"),
    "jpeg": (b"\xff\xd8\xff\xe0" + filled(900), "is a JPEG image, not a tar"),
    "login page": (
        b"\n<!DOCTYPE html><html>Log in</html>".ljust(600, b"\n"),
        "is a web page (HTML), not a tar: the download was probably not logged in",
    ),
    "short page": (b"\xef\xbb\xbf <HTML>Log in</HTML>", "is a web page (HTML), not a tar"),
    "store's error": (b"<?xml version='1.0'?><Error/>", "is an XML text, not a tar"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS, not a tar"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_FORMATS)
def test_another_format_under_a_tars_name_is_named(case: str) -> None:
    content, what = OTHER_FORMATS[case]
    with pytest.raises(ArchiveError, match=f"^memory.tar {re.escape(what)}.* byte 0"):
        members_of(content)
    inner = InMemory(filled(512) + content)
    with pytest.raises(
        ArchiveError, match=rf"^n.tar in memory.tar \(at byte 512\) {re.escape(what)}"
    ):
        list(walk(inner, start=512, stop=512 + len(content), inner="n.tar", suspicions=[]))


def test_a_name_like_another_formats_mark_is_a_name() -> None:
    content = header(b"<html>") + header(b"BZh") + END_MARK
    assert [member.name for member in members_of(content)] == [b"<html>", b"BZh"]


def test_a_very_long_name_does_not_fill_the_message() -> None:
    content = extended(b"L", b"start" + b"x" * 500_000 + b"end") + header(b"s", kind=b"2")
    with pytest.raises(ArchiveError, match=r"'startx+\.\.\.x+end' is a symbolic link") as caught:
        members_of(content + END_MARK)
    assert len(str(caught.value)) < 1000


def test_a_megabyte_of_pax_records_takes_no_minutes() -> None:
    content = extended(b"x", b"4 =\n" * 262_144) + header(b"a") + END_MARK
    started = time.process_time()
    assert [member.name for member in members_of(content)] == [b"a"]
    assert (
        time.process_time() - started < 2
    )  # 0.2 s; 4 s and more where each record copies the rest


tars = st.builds(
    lambda members, format: tar_of([(name, filled(size)) for name, size in members], format=format),
    st.lists(st.tuples(st.sampled_from(["a", "./b", "folder/c", LONG]), sizes), max_size=4),
    st.sampled_from(list(FORMATS.values())),
)
fields = st.one_of(
    st.binary(max_size=12),
    st.integers(0, 2**95 - 1).map(lambda number: b"\x80" + number.to_bytes(12, "big")[1:]),
    st.sampled_from([0, 1, 512, 70_000, 1 << 20, (1 << 20) + 1, 1 << 32]).map(lambda n: b"%o" % n),
)
headers = st.builds(
    lambda name, size, kind: header(name, size=size, kind=kind),
    st.binary(max_size=20),
    fields,
    st.sampled_from([bytes((byte,)) for byte in b"0057LKxgSMV123456Z"] + [b"\0"]),
)
pax_values = st.one_of(st.binary(max_size=30), st.integers(-1, 2**70).map(lambda n: b"%d" % n))
pax_records = st.builds(
    lambda key, value: pax_record(key, value),
    st.sampled_from([b"path", b"size", b"comment", b"GNU.sparse.size", b""]),
    pax_values,
)
extensions = st.builds(
    extended,
    st.sampled_from([b"L", b"K", b"x", b"g"]),
    st.one_of(st.binary(max_size=1200), st.lists(pax_records, max_size=4).map(b"".join)),
)
blocks = st.one_of(headers, extensions, tars, st.binary(max_size=600), st.just(bytes(512)))
anything = st.lists(blocks, max_size=8).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """What `whole` gives, with bytes replaced, the end cut off, or more after it."""
    content = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        if content:
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    stop = draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    return bytes(content[:stop]) + draw(st.one_of(st.just(b""), st.binary(max_size=600)))


@given(content=damaged(st.one_of(tars, anything)), inner=st.booleans())
@settings(deadline=None, max_examples=400)
def test_whatever_the_bytes_only_an_archive_error_comes_out_and_little_is_read(
    content: bytes, inner: bool
) -> None:
    file = Counting(content)
    position = 0
    with contextlib.suppress(ArchiveError):
        for member in walk(file, start=0, stop=len(content), suspicions=[] if inner else None):
            assert position <= member.start < member.offset <= member.offset + member.size
            assert member.offset + member.size <= member.stop <= len(content)
            position = member.stop
    assert_bounded(file)


@given(
    kinds=st.lists(st.sampled_from([b"L", b"K", b"x", b"g"]), min_size=1, max_size=40),
    length=st.sampled_from([0, 100, 5000, 300_000]),
    ending=st.sampled_from([b"", END_MARK, header(b"a") + END_MARK, b"x" * 512]),
    before=st.sampled_from([0, 1, 20_000]),
)
@settings(deadline=None, max_examples=60)
def test_a_chain_of_extended_headers_is_read_once(
    kinds: list[bytes], length: int, ending: bytes, before: int
) -> None:
    content = header(b"first", size=before) + bytes(-(-before // 512) * 512)
    for kind in kinds:
        text = pax_record(b"comment", b"c" * length) if kind in b"xg" else b"n" * length
        content += extended(kind, text)
    file = Counting(content + ending)
    with contextlib.suppress(ArchiveError):
        list(walk(file, start=0, stop=len(content + ending)))
    assert_bounded(file)


def test_members_before_the_damage_are_told_of() -> None:
    content, _, _ = REFUSED["second header damaged"]
    source = InMemory(content)
    assert next(walk(source, start=0, stop=len(content))).name == b"first"


def test_a_checksum_that_is_no_number_is_refused() -> None:
    block = bytearray(header(b"\xff" * 100, size=0))
    block[148:156] = b"no sum!!"
    rest = 65_264 - sum(block[:148]) - sum(block[156:])
    for position in range(157, 257):
        block[position] = min(255, rest)
        rest -= block[position]
    for position in range(345, 512):
        block[position] = min(255, rest)
        rest -= block[position]
    assert rest == 0
    with pytest.raises(ArchiveError):
        members_of(bytes(block) + END_MARK)


def test_a_pax_header_before_the_end_mark_is_refused() -> None:
    with pytest.raises(ArchiveError, match="followed by no member"):
        members_of(extended(b"x", pax_record(b"mtime", b"1")) + END_MARK)


def test_a_damaged_global_header_is_refused() -> None:
    with pytest.raises(ArchiveError):
        members_of(extended(b"g", b"rubbish") + header(b"a") + END_MARK)


def test_a_global_header_with_a_path_is_refused() -> None:
    with pytest.raises(ArchiveError, match="global pax header"):
        members_of(extended(b"g", pax_record(b"path", b"other")) + header(b"a") + END_MARK)
