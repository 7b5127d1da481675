"""The quick look at archives: a few reads, and what it calls damaged no conversion accepts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_imagenet import inspection
from beam_imagenet.errors import ArchiveError, StorageError
from beam_imagenet.model import SPLITS, Source
from beam_imagenet.plan import plan_split
from beam_imagenet.storage import ArchiveFile
from tests.inspections import (
    FILES,
    fully,
    make_official,
    sample,
    source_of,
    validation_tar,
    whole_train,
)
from tests.inventories import TENCH, read
from tests.tars import END_MARK, header, tar_of, write_source


def converts(source: Source) -> bool:
    """Whether a conversion would accept the archive's headers."""
    try:
        plan_split(source, read(source))
    except ArchiveError:
        return False
    return True


def test_the_table_has_the_official_archives() -> None:
    table = inspection.official_archives()
    assert {split: official.size for split, official in table.items()} == {
        "train": 147_897_477_120,
        "validation": 6_744_924_160,
        "test": None,
    }
    assert all(len(bytes.fromhex(official.sha256)) == 32 for official in table.values())
    assert table["train"].sha256.startswith("b08200a2")


@pytest.mark.parametrize("split", SPLITS)
def test_a_whole_archive_is_not_called_damaged(archives: Path, split: str) -> None:
    found = inspection.quick(sample(archives, split))
    assert found.is_usable
    assert found.texts == ()
    assert "begins and ends as a whole archive does; --full " in found.verdict
    if split != "test":
        assert f"not the official {inspection.official_archives()[split].size:,}" in found.verdict
    inspection.require_whole([found.source])


def test_the_official_size_is_told_and_proves_nothing(
    archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sample(archives, "validation")
    make_official(monkeypatch, source, size=source.size)
    found = inspection.quick(source)
    assert found.verdict == "has the official size; --full compares its checksum"
    assert found.is_usable


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.999])
def test_an_archive_cut_off_in_its_images_is_damaged(
    archives: Path, tmp_path: Path, split: str, share: float
) -> None:
    content = (archives / FILES[split]).read_bytes()
    cut = int(len(content.rstrip(b"\0")) * share)
    while not any(
        content[cut - 512 : cut]
    ):  # the small inner archives are padded with much of them
        cut -= 512
    source = write_source(tmp_path, split, content[:cut])
    found = inspection.quick(source)
    assert found.verdict == "damaged"
    assert not found.is_usable
    [text] = found.texts
    assert text.startswith(f"{source.archive} is ")
    assert "cut off" in text
    with pytest.raises(ArchiveError) as caught:
        inspection.require_whole([source])
    assert str(caught.value) == text


def test_a_cut_off_archive_is_told_where_it_ends_and_what_it_lacks(tmp_path: Path) -> None:
    source = write_source(tmp_path, "validation", validation_tar([1, 2])[: 4 * 512])
    [text] = inspection.quick(source).texts
    assert text == (
        f"{source.archive} is damaged: it ends at byte 2,048 without the zeros that end a tar, so it was "
        "cut off. The official archive has 6,744,924,160 bytes, 6,744,922,112 more. Resume the download, or "
        "fetch the archive again."
    )


@pytest.mark.parametrize(
    ("split", "content", "what"),
    [
        ("train", b"", "is empty: "),
        ("test", b"", "is empty: "),
        ("train", b"\x1f\x8b\x08" + bytes(2000), "is gzip-compressed, not a tar: "),
        ("validation", b"<html>Sign in".ljust(2000), "is a web page (HTML), not a tar: "),
        ("test", b"<html>Sign in", "is a web page (HTML), not a tar: "),
        ("train", validation_tar([1]), "is not the archive of one of ILSVRC-2012's"),
        ("validation", whole_train(leave_out=999), "has no name of the validation split"),
        ("test", validation_tar([1]), "has no name of the test split"),
        ("validation", bytes(100_000), "at byte 0, there are zeros and no header"),
        ("validation", bytes(100), "ends inside a header"),
        ("validation", header(b"folder/", kind=b"5") + END_MARK, "holds no images"),
        ("validation", b"x" * 512 + bytes(1024), "at byte 0, here is no tar header"),
        ("validation", header(b"a", kind=b"2") + bytes(1024), "is a symbolic link"),
    ],
)
def test_what_is_no_archive_of_the_split_is_damaged(
    tmp_path: Path, split: str, content: bytes, what: str
) -> None:
    source = write_source(tmp_path, split, content)
    found = inspection.quick(source)
    assert found.verdict == "damaged"
    assert what in found.texts[0]
    assert not converts(source)


whole_archives = st.sampled_from(
    [
        ("train", whole_train(leave_out=998)),
        ("validation", validation_tar([1, 2, 3])),
        ("validation", header(b"folder/", kind=b"5") + validation_tar([1])),
        ("test", tar_of([("ILSVRC2012_test_00000001.JPEG", bytes(1500))])),
        ("train", header(f"{TENCH}.tar".encode()) + END_MARK),
        ("train", header(f"{TENCH}.tar".encode(), size=1024) + header(f"{TENCH}_1.JPEG".encode())),
    ]
)


@given(
    archive=whole_archives,
    length=st.one_of(st.none(), st.integers(0, 12_000), st.integers(0, 24).map(lambda n: n * 512)),
    zeros=st.sampled_from([0, 1, 511, 512, 1024, 3000]),
    changes=st.lists(st.tuples(st.integers(0, 12_000), st.integers(1, 255)), max_size=2),
)
@settings(deadline=None, max_examples=300)
def test_what_is_called_damaged_no_conversion_accepts(
    tmp_path_factory: pytest.TempPathFactory,
    archive: tuple[str, bytes],
    length: int | None,
    zeros: int,
    changes: list[tuple[int, int]],
) -> None:
    split, whole = archive
    content = bytearray(whole[:length] + bytes(zeros))
    for position, flipped in changes:
        if content:
            content[position % len(content)] ^= flipped
    source = write_source(tmp_path_factory.getbasetemp(), split, bytes(content))
    if not inspection.quick(source).is_usable:
        assert not converts(source)


def test_zeros_after_the_end_mark_are_no_damage(tmp_path: Path) -> None:
    whole = validation_tar([1]).rstrip(b"\0")
    whole += bytes(-len(whole) % 512)
    for zeros in (512, 513, 1024, 10_240, 1_000_000):
        source = write_source(tmp_path, "validation", whole + bytes(zeros))
        assert inspection.quick(source).is_usable
        assert inspection.quick(source).texts == ()
        assert converts(source)


class Counted(ArchiveFile):
    """An archive whose reads are counted, over all instances."""

    reads: list[int]

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`."""
        self.reads.append(size)
        assert sum(self.reads) < 6 << 20
        return super().read(offset, size)


def large_archive(folder: Path, split: str, start: bytes, *, size: int) -> Source:
    """An archive with zeros from the end of `start` up to its size, which the disk does not store."""
    path = folder / f"{split}.tar"
    path.write_bytes(start)
    os.truncate(path, size)
    return source_of(path, split)


@pytest.mark.parametrize(
    ("split", "start", "usable"),
    [
        ("validation", validation_tar([1])[:1024], True),
        ("validation", header(b"folder/", kind=b"5"), True),
        ("train", header(f"{TENCH}.tar".encode(), size=100 << 20), True),
        ("train", header(f"{TENCH}.tar".encode(), size=1 << 32), True),
        ("train", header(f"{TENCH}.tar".encode()), True),
        ("test", b"", False),
    ],
)
def test_a_quick_look_reads_a_few_megabytes_of_the_largest_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, start: bytes, usable: bool
) -> None:
    source = large_archive(tmp_path, split, start, size=147_897_477_120)
    monkeypatch.setattr(Counted, "reads", [], raising=False)
    monkeypatch.setattr("beam_imagenet.archives.ArchiveFile", Counted)
    found = inspection.quick(source)
    assert found.is_usable == usable
    assert Counted.reads
    if usable:
        [text] = found.texts
        assert text.startswith("Its last 1.0 MB and more are zeros. An interrupted download ")


def test_a_whole_archive_costs_a_handful_of_reads(
    archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counted, "reads", [], raising=False)
    monkeypatch.setattr("beam_imagenet.archives.ArchiveFile", Counted)
    for split in SPLITS:
        Counted.reads.clear()
        inspection.quick(sample(archives, split))
        assert len(Counted.reads) <= 6
        assert sum(Counted.reads) < 2 << 20


def test_a_run_stops_at_the_first_damaged_archive(archives: Path, tmp_path: Path) -> None:
    whole = [sample(archives, split) for split in SPLITS]
    inspection.require_whole(whole)
    inspection.require_whole([])
    first = write_source(tmp_path, "train", whole_train(leave_out=999)[:-10_240])
    second = write_source(tmp_path, "test", b"<html>")
    for broken, message in ((first, r"train\.tar is "), (second, r"test\.tar is a web page")):
        with pytest.raises(ArchiveError, match=message):
            inspection.require_whole([*whole, broken])
    with pytest.raises(ArchiveError, match=r"train\.tar is "):
        inspection.require_whole([whole[1], first, second])


@pytest.mark.parametrize("look", [inspection.quick, fully])
def test_an_archive_that_is_gone_or_changed_is_an_error_of_storage(
    archives: Path, tmp_path: Path, look: object
) -> None:
    assert callable(look)
    source = write_source(tmp_path, "validation", validation_tar([1]))
    path = Path(source.archive)
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(StorageError, match="changed during the run"):
        look(source)
    path.unlink()
    with pytest.raises(StorageError, match="cannot be opened"):
        look(source)
