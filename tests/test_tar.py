"""The walk over tar headers finds what the standard library's tarfile does, whoever wrote them."""

from __future__ import annotations

import itertools
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_imagenet.storage import ArchiveFile
from beam_imagenet.tar import walk
from tests.tars import (
    END_MARK,
    FORMATS,
    LONG,
    SIZES,
    Format,
    InMemory,
    extended,
    filled,
    header,
    listed,
    members_of,
    pax_record,
    special,
    tar_of,
    triples,
)

sizes = st.sampled_from(SIZES)
short_names = st.from_regex(r"(\./|[a-z]{1,80}/)?[A-Za-z0-9_.]{1,90}[a-z]", fullmatch=True)
any_names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300
).filter(lambda name: not name.endswith("/"))


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
        found = list(walk(archive, start=0, stop=path.stat().st_size))
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
    found = list(walk(file, start=before, stop=before + len(content)))
    moved = [(name, offset + before, size) for name, offset, size in listed(content)]
    assert triples(found) == moved


def test_an_empty_tar_has_no_members() -> None:
    assert members_of(tar_of([])) == []
    suspicions: list[str] = []
    assert members_of(b"", suspicions=suspicions) == []
    assert not suspicions


def test_one_block_of_zeros_is_an_end_mark() -> None:
    content = header(b"a") + bytes(512)
    assert len(members_of(content)) == 1
