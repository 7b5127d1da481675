"""The walk over tar headers, beside the standard library's tarfile; and what it refuses."""

from __future__ import annotations

import gzip
import io
import itertools
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_imagenet.errors import ArchiveError
from beam_imagenet.storage import ArchiveFile
from beam_imagenet.tar import Member, walk
from tests.tars import (
    END_MARK,
    FORMATS,
    Format,
    InMemory,
    extended,
    header,
    listed,
    pax_record,
    special,
    tar_of,
)

LONG = "folder/" + "x" * 93 + "/" + "n" * 99
"""Long enough for each format's way of storing long names, and not too long for ustar's."""

SIZES = (0, 1, 511, 512, 513, 16_383, 16_384, 300_000)

sizes = st.sampled_from(SIZES)
short_names = st.from_regex(r"(\./|[a-z]{1,80}/)?[A-Za-z0-9_.]{1,90}[a-z]", fullmatch=True)
any_names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300
).filter(lambda name: not name.endswith("/"))


def filled(size: int) -> bytes:
    """Data of no zero byte, so that a walk that loses its way sees neither a header nor an end."""
    return b"\xff" * size


def members_of(content: bytes, *, end_mark_required: bool = True) -> list[Member]:
    return list(
        walk(InMemory(content), start=0, stop=len(content), end_mark_required=end_mark_required)
    )


def triples(members: list[Member]) -> list[tuple[bytes, int, int]]:
    return [(member.name, member.offset, member.size) for member in members]


def same_as_tarfile(content: bytes) -> bool:
    return triples(members_of(content)) == listed(content)


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
@given(members=st.lists(st.tuples(short_names, sizes), max_size=8))
@settings(deadline=None, max_examples=40)
def test_members_are_tarfiles(format: Format, members: list[tuple[str, int]]) -> None:
    content = tar_of([(name, filled(size)) for name, size in members], format=format)
    found = members_of(content)
    assert triples(found) == listed(content)
    assert [(member.name.decode(), member.size) for member in found] == members


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@given(members=st.lists(st.tuples(any_names, sizes), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_long_and_foreign_names_are_tarfiles(
    format: Format, members: list[tuple[str, int]]
) -> None:
    content = tar_of([(name, filled(size)) for name, size in members], format=format)
    found = members_of(content)
    assert triples(found) == listed(content)
    assert [member.name for member in found] == [name.encode() for name, _ in members]


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_members_beyond_one_read_of_headers_are_tarfiles(format: Format) -> None:
    # Small members share a read, large ones end it; long names put extended headers at its edges.
    around = [0, 1, 511, 512, 513, 2000, 16_383, 16_384, 16_385]
    files = [
        (f"{LONG[: 40 + number % 150]}{number}", filled(size))
        for number, size in zip(range(1200), itertools.cycle(around), strict=False)
    ]
    content = tar_of(files, format=format)
    assert len(content) > 16 * (256 << 10)
    assert same_as_tarfile(content)
    only_small = tar_of(
        [(name, filled(number)) for number, (name, _) in enumerate(files)], format=format
    )
    assert same_as_tarfile(only_small)


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_directories_are_passed_over(format: Format) -> None:
    folders = [special(name, tarfile.DIRTYPE) for name in ("./", "folder", "x" * 90, "last")]
    files = [("./a", b"1"), (f"folder/{LONG}", filled(600)), ("x/../y", b"")]
    entries: list[tuple[str, bytes] | tarfile.TarInfo] = [folders[-1]]
    for folder, file in zip(folders, files, strict=False):
        entries += [folder, file]
    entries.append(folders[-1])
    content = tar_of(entries, format=format)
    assert same_as_tarfile(content)
    assert len(members_of(content)) == len(files)


def test_a_directorys_size_is_no_data() -> None:
    folder = header(b"folder/", size=4096, kind=b"5")
    content = folder + header(b"folder/a", size=1) + b"1".ljust(512, b"\0") + END_MARK
    assert triples(members_of(content)) == [(b"folder/a", 1024, 1)] == listed(content)


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
@given(order=st.permutations(range(6)))
@settings(deadline=None, max_examples=20)
def test_every_byte_belongs_to_one_member(format: Format, order: list[int]) -> None:
    """From the first header to the end mark; `start` includes extended headers."""
    files = [(f"{LONG[: 60 * number]}{number}", filled(SIZES[number])) for number in range(6)]
    content = tar_of([files[number] for number in order], format=format)
    found = members_of(content)
    assert [member.start for member in found] == [0, *(member.stop for member in found[:-1])]
    assert not content[found[-1].stop :].strip(b"\0")
    for member, number in zip(found, order, strict=True):
        assert content[member.offset : member.offset + member.size] == files[number][1]
        assert member.stop - 512 < member.offset + member.size <= member.stop


def test_global_pax_headers_are_passed_over() -> None:
    content = tar_of(
        [("a", b"1"), (LONG, b"22")],
        format=tarfile.PAX_FORMAT,
        global_headers={"comment": "of all members", "mtime": "1.5"},
    )
    assert content[156:157] == b"g"
    assert same_as_tarfile(content)
    assert members_of(content)[0].start == 0


@pytest.mark.parametrize(
    "head",
    [
        header(b"a", size=3, kind=b"\0", magic=b""),
        header(b"a", size=3, kind=b"7"),
        header(b"n" * 100, size=3),
        header(b"n" * 100, size=3, prefix=b"p" * 155),
        header(b"a", size=b"\x80" + bytes(10) + b"\x03"),
        header(b"a", size=b"         3 "),
        header(b"a", size=b"3"),
        header(b"\xc3\xa4\xe9", size=3),
        header(b"\xc3\xa4\xe9", size=3, signed_sum=True),
        extended(b"L", b"long\0") + header(b"short", size=3),
        extended(b"K", b"a link's target\0") + extended(b"L", b"long\0") + header(b"s", size=3),
        extended(b"x", pax_record(b"size", b"3")) + header(b"a", size=0),
        extended(b"x", pax_record(b"path", b"in pax") + pax_record(b"mtime", b"1.5"))
        + header(b"a", size=3),
    ],
    ids=[
        "v7",
        "contiguous file",
        "name of 100 bytes",
        "prefix of 155 bytes",
        "base-256",
        "spaces",
        "short field",
        "high bytes",
        "signed sum",
        "gnu long name",
        "gnu long link",
        "pax size",
        "pax path",
    ],
)
def test_headers_of_other_writers_are_read_as_tarfile_does(head: bytes) -> None:
    content = head + b"abc".ljust(512, b"\0") + END_MARK
    [(_, offset, size)] = triples(members_of(content))
    assert content[offset : offset + size] == b"abc"
    assert same_as_tarfile(content)


def test_a_directory_of_unix_v7_is_a_name_with_a_slash() -> None:
    content = header(b"folder/", kind=b"\0", magic=b"") + tar_of([("folder/a", b"1")])
    assert [member.name for member in members_of(content)] == [b"folder/a"]
    assert same_as_tarfile(content)


def test_gnus_fields_at_the_place_of_ustars_prefix_are_no_name() -> None:
    block = header(b"a", size=3, magic=b"ustar  \0", prefix=b"14000000000\0")
    assert members_of(block + b"abc".ljust(512, b"\0") + END_MARK)[0].name == b"a"


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_a_member_over_eight_gibibytes_keeps_its_size(tmp_path: Path, format: Format) -> None:
    info = tarfile.TarInfo("large")
    info.size = 9 << 30
    head = info.tobuf(format)
    tail = tar_of([("after", b"1")])
    path = tmp_path / "sparse.tar"
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + info.size)
        file.write(tail)
    with ArchiveFile(str(path)) as archive:
        found = list(walk(archive, start=0, stop=path.stat().st_size, end_mark_required=True))
    assert triples(found) == [
        (b"large", len(head), info.size),
        (b"after", len(head) + info.size + 512, 1),
    ]


@given(before=st.integers(0, 2000), after=st.integers(0, 2000), members=st.lists(sizes, max_size=5))
@settings(deadline=None, max_examples=40)
def test_a_tar_within_a_file_is_read_alone(before: int, after: int, members: list[int]) -> None:
    """Offsets count from the start of the file, whatever lies before and after."""
    content = tar_of([(f"{number}", filled(size)) for number, size in enumerate(members)])
    file = InMemory(filled(before) + content + filled(after))
    found = list(walk(file, start=before, stop=before + len(content), end_mark_required=True))
    moved = [(name, offset + before, size) for name, offset, size in listed(content)]
    assert triples(found) == moved


def test_an_empty_tar_has_no_members() -> None:
    assert members_of(tar_of([])) == []
    assert members_of(b"", end_mark_required=False) == []


def test_one_block_of_zeros_is_an_end_mark() -> None:
    content = header(b"a") + bytes(512)
    assert len(members_of(content)) == 1


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


def test_a_tar_in_a_tar_may_end_between_members() -> None:
    content = tar_of([("a", filled(513)), ("b", b"2")])
    first, second = members_of(content)
    assert members_of(content[: second.stop], end_mark_required=False) == [first, second]
    with pytest.raises(ArchiveError, match=r"at byte 2,560, .*cut off between two members"):
        members_of(content[: second.stop])


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", filled(1000))
    return buffer.getvalue()


FIRST = tar_of([("first", b"1")])[:1024]
PAX_PATH = extended(b"x", pax_record(b"path", b"second"))
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 0, "cut off"),
    "one byte": (b"n", 0, "ends inside a header"),
    "gzip": (gzip.compress(bytes(range(256)) * 9)[:400].ljust(512, b"\1"), 0, "no tar header"),
    "zip": (zipped(), 0, "no tar header"),
    "html": (b"<!DOCTYPE html><html>Log in</html>".ljust(600, b"\n"), 0, "no tar header"),
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
    "size of letters": (FIRST + header(b"second", size=b"12 monkeys"), 1024, "size is no number"),
    "size of nines": (FIRST + header(b"second", size=b"99999999999"), 1024, "size is no number"),
    "negative size": (FIRST + header(b"second", size=b"-1"), 1024, "claims the size -1"),
    "huge size": (FIRST + header(b"second", size=b"\xff" * 12), 1024, "claims the size"),
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
    "pax size of letters": (FIRST + extended(b"x", pax_record(b"size", b"few")), 1024, "size is no number"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named_with_path_and_byte(case: str) -> None:
    content, byte, what = REFUSED[case]
    with pytest.raises(ArchiveError, match=re.escape(what)) as caught:
        members_of(content)
    assert str(caught.value).startswith(f"memory.tar is damaged or no tar: at byte {byte:,}, ")
    assert "fetch it again" in str(caught.value)


def test_members_before_the_damage_are_told_of() -> None:
    content, _, _ = REFUSED["second header damaged"]
    source = InMemory(content)
    assert next(walk(source, start=0, stop=len(content), end_mark_required=True)).name == b"first"


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
