"""Archives that are damaged, odd, or no ILSVRC-2012: what is refused and how, and what is only told."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_imagenet import labels
from beam_imagenet.errors import ArchiveError
from beam_imagenet.inventory import list_segments, read_segment, require_start
from beam_imagenet.model import SPLITS, Source
from beam_imagenet.plan import plan_split
from tests.inventories import (
    GOLDFISH,
    TENCH,
    TISSUE,
    TRAIN,
    assert_covers_each_byte_once,
    converted,
    read,
    require_start_of,
    rows,
    segments_of,
    validation_name,
)
from tests.tars import (
    END_MARK,
    Counting,
    assert_bounded,
    header,
    listed,
    padded,
    special,
    tar_of,
    train_tar,
    write_source,
)

IMAGE = (f"{TENCH}_1.JPEG", b"1" * 600)
INNER = tar_of([IMAGE])


def member(name: str, data: bytes) -> bytes:
    return header(name.encode(), size=len(data)) + padded(data)


def train_of(*inner: tuple[str, bytes], end: bytes = END_MARK) -> bytes:
    return b"".join(member(name, data) for name, data in inner) + end


def test_a_train_archive_of_nothing_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path, "train", tar_of([]))
    with pytest.raises(
        ArchiveError, match=r"train\.tar holds no synset archives .* --train\.$"
    ) as caught:
        segments_of(source)
    assert f"at byte {source.size:,}. " in str(caught.value)


def test_damage_in_an_inner_archive_is_told_by_its_place_in_the_outer(tmp_path: Path) -> None:
    content = bytearray(train_tar(TRAIN))
    broken = listed(bytes(content))[1][1] + 1024
    content[broken + 20] ^= 1
    source = write_source(tmp_path, "train", bytes(content))
    with pytest.raises(ArchiveError, match=f"^{TENCH}.tar in .*: at byte {broken:,}, ") as caught:
        read(source)
    start = listed(bytes(content))[1][1]
    assert f" in {source.archive} (at byte {start:,}) is damaged" in str(caught.value)


def test_an_outer_archive_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    content = train_tar(TRAIN)
    last = listed(content)[-1]
    for size in (last[1] + last[2], last[1] + 100, last[1] - 512, last[1] - 700):
        with pytest.raises(ArchiveError, match=r"train\.tar is damaged"):
            segments_of(write_source(tmp_path, "train", content[:size]))


def test_a_flat_archive_that_was_cut_off_between_members_is_refused(tmp_path: Path) -> None:
    content = tar_of([("ILSVRC2012_test_00000001.JPEG", b"1")])[:1024]
    with pytest.raises(ArchiveError, match=r"test\.tar is damaged.* at byte 1,024, .* cut off"):
        read(write_source(tmp_path, "test", content))


def test_a_member_larger_than_any_photograph_is_refused(tmp_path: Path) -> None:
    size = (1 << 30) + 1
    path = tmp_path / "test.tar"
    with path.open("wb") as file:
        file.write(header(b"ILSVRC2012_test_00000001.JPEG", size=size))
        file.truncate(512 + size + 511 + 1024)
    source = Source(split="test", archive=str(path), size=path.stat().st_size, modified=0)
    with pytest.raises(ArchiveError, match="at byte 0 claims 1,073,741,825 bytes"):
        read(source)


@pytest.mark.parametrize(
    ("inner", "names", "suspicion"),
    [
        (INNER[:1536], [IMAGE[0]], "has no end mark: it may have been cut off between two members"),
        (INNER[:2048], [IMAGE[0]], None),
        (INNER, [IMAGE[0]], None),
        (b"", [], "holds no images"),
        (bytes(512), [], "holds no images"),
        (END_MARK, [], "holds no images"),
        (header(b"folder/", kind=b"5") + END_MARK, [], "holds no images"),
    ],
    ids=["no end mark", "short end mark", "whole", "0 bytes", "one block", "end mark", "a folder"],
)
def test_an_odd_inner_archive_is_converted_and_told_of(
    tmp_path: Path, inner: bytes, names: list[str], suspicion: str | None
) -> None:
    other = f"{GOLDFISH}_1.JPEG"
    content = train_of((f"{GOLDFISH}.tar", tar_of([(other, b"2")])), (f"{TENCH}.tar", inner))
    source = write_source(tmp_path, "train", content)
    first, second = read(source)
    assert converted(source) == [*((name, 0) for name in names), (other, 1)]
    assert first.suspicions == ()
    start = listed(content)[1][1]
    where = f"{TENCH}.tar in {source.archive} (at byte {start:,})"
    if suspicion is None:
        assert second.suspicions == ()
    else:
        [text] = second.suspicions
        assert text.startswith(f"{where} {suspicion}")


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("content", [END_MARK, header(b"folder/", kind=b"5") + END_MARK])
def test_a_flat_archive_of_no_images_is_refused(tmp_path: Path, split: str, content: bytes) -> None:
    source = write_source(tmp_path, split, content)
    with pytest.raises(
        ArchiveError,
        match=rf"{split}\.tar holds no images .* byte {source.size:,}\. .* --{split}\.$",
    ):
        read(source)
    with pytest.raises(ArchiveError, match="holds no images"):
        require_start_of(source)


@pytest.mark.parametrize("inner", [b"", END_MARK])
def test_a_train_archive_of_no_images_is_refused(tmp_path: Path, inner: bytes) -> None:
    source = write_source(tmp_path, "train", train_of((f"{TENCH}.tar", inner)))
    require_start_of(source)
    with pytest.raises(ArchiveError, match="holds no images"):
        converted(source)


OTHER_FORMATS = {
    "gzip": (gzip.compress(INNER), "is gzip-compressed, not a tar: decompress it first"),
    "bzip2": (bz2.compress(INNER), "is bzip2-compressed, not a tar: decompress it first"),
    "xz": (lzma.compress(INNER), "is xz-compressed, not a tar: decompress it first"),
    "zip": (b"PK\3\4".ljust(900, b"z"), "is a zip archive, not a tar"),
    "html": (b"<!doctype html><title>Sign in</title>", "is a web page (HTML), not a tar"),
}


@pytest.mark.parametrize("case", OTHER_FORMATS)
@pytest.mark.parametrize("split", SPLITS)
def test_another_format_is_named(tmp_path: Path, split: str, case: str) -> None:
    content, what = OTHER_FORMATS[case]
    source = write_source(tmp_path, split, content)
    for attempt in (read, require_start_of):
        with pytest.raises(ArchiveError, match=f"^{re.escape(source.archive + ' ' + what)}"):
            attempt(source)


@pytest.mark.parametrize("case", OTHER_FORMATS)
def test_another_format_within_the_train_archive_is_named(tmp_path: Path, case: str) -> None:
    inner, what = OTHER_FORMATS[case]
    source = write_source(tmp_path, "train", train_of((f"{TENCH}.tar", inner)))
    title = f"{TENCH}.tar in {source.archive} (at byte 512) {what}"
    for attempt in (read, require_start_of):
        with pytest.raises(ArchiveError, match=f"^{re.escape(title)}"):
            attempt(source)


@pytest.mark.parametrize("split", SPLITS)
def test_an_archive_of_0_bytes_is_said_to_be_empty(tmp_path: Path, split: str) -> None:
    source = write_source(tmp_path, split, b"")
    for attempt in (read, require_start_of):
        with pytest.raises(ArchiveError, match=rf"{split}\.tar is empty: .* byte 0"):
            attempt(source)


NO_FILES = {
    "hard link": special("odd", tarfile.LNKTYPE),
    "symbolic link": special("odd", tarfile.SYMTYPE),
    "character device": special("odd", tarfile.CHRTYPE),
    "block device": special("odd", tarfile.BLKTYPE),
    "FIFO": special("odd", tarfile.FIFOTYPE),
    "sparse file": special("odd", b"S"),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("place", [*SPLITS, "inner"])
def test_what_is_no_plain_file_is_refused_by_name(tmp_path: Path, place: str, kind: str) -> None:
    first = {
        "train": (f"{TENCH}.tar", INNER),
        "validation": (validation_name(1), b"1"),
        "test": ("ILSVRC2012_test_00000001.JPEG", b"1"),
        "inner": IMAGE,
    }[place]
    content = tar_of([first, NO_FILES[kind]])
    byte = len(header(b"")) + len(padded(first[1]))
    if place == "inner":
        content = train_of((f"{TENCH}.tar", content))
        byte += 512
    source = write_source(tmp_path, place if place in SPLITS else "train", content)
    with pytest.raises(
        ArchiveError, match=f"at byte {byte:,}, member 'odd' is a {kind}, not a plain file"
    ) as caught:
        read(source)
    assert source.archive in str(caught.value)


def test_an_image_cut_off_in_an_inner_archive_is_named(tmp_path: Path) -> None:
    source = write_source(tmp_path, "train", train_of((f"{TENCH}.tar", INNER[:1024])))
    with pytest.raises(
        ArchiveError,
        match=rf"^{TENCH}\.tar in .*train\.tar \(at byte 512\) .* at byte 512, member '{IMAGE[0]}' claims "
        "600 bytes at 1,024, but the archive ends at 1,536: it was cut off",
    ):
        read(source)


@pytest.mark.parametrize("size", [len(INNER) + 4096, 1 << 32])
def test_an_inner_archive_that_claims_more_than_there_is_is_named(
    tmp_path: Path, size: int
) -> None:
    content = train_of((f"{GOLDFISH}.tar", END_MARK))[:-1024]
    content += header(f"{TENCH}.tar".encode(), size=size) + INNER
    source = write_source(tmp_path, "train", content)
    with pytest.raises(
        ArchiveError,
        match=rf"at byte 1,536, member '{TENCH}\.tar' claims {size:,} bytes at 2,048, but the archive ends",
    ):
        read(source)


@pytest.mark.parametrize("again", [f"{TENCH}.tar", f"train/{TENCH}.tar"])
def test_a_synset_that_is_there_twice_is_refused(tmp_path: Path, again: str) -> None:
    other = tar_of([(f"{TENCH}_2.JPEG", b"2")])
    source = write_source(tmp_path, "train", train_of((f"{TENCH}.tar", INNER), (again, other)))
    with pytest.raises(
        ArchiveError,
        match=rf"the archive of {TENCH} is there twice, at bytes 0 and {len(INNER) + 512:,} \('{again}'\)\.",
    ):
        read(source)


@pytest.mark.parametrize(
    ("split", "content", "name", "first", "second"),
    [
        (
            "validation",
            tar_of([(f"{folder}{validation_name(3)}", b"3") for folder in ("", "again/")]),
            validation_name(3),
            512,
            1536,
        ),
        ("train", train_of((f"{TENCH}.tar", tar_of([IMAGE, IMAGE]))), IMAGE[0], 1024, 2560),
    ],
    ids=["validation", "train"],
)
def test_a_name_that_is_there_twice_is_refused(
    tmp_path: Path, split: str, content: bytes, name: str, first: int, second: int
) -> None:
    source = write_source(tmp_path, split, content)
    with pytest.raises(
        ArchiveError, match=f"'{name}' is there twice, with data at bytes {first:,} and {second:,}"
    ):
        converted(source)


@pytest.mark.parametrize(
    ("split", "content", "what"),
    [
        ("train", train_of((f"{TENCH}.tar", INNER[:700] + b"x" + INNER[701:])), None),
        ("train", train_of((f"{TENCH}.tar", tar_of([("n02.JPEG", b"")]))), "no name of the train"),
        ("train", train_of(("n02.tar", INNER)), "'n02.tar' at byte 0 is not the archive"),
        ("train", train_of((validation_name(1), INNER)), "is not the archive of one"),
        ("validation", tar_of([(validation_name(0), b"")]), "no name of the validation split"),
        ("validation", tar_of([(f"{TENCH}.tar", INNER)]), "no name of the validation split"),
        ("validation", tar_of([(validation_name(1), b"")]), None),
        ("test", tar_of([(validation_name(1), b"")]), "no name of the test split"),
    ],
)
def test_a_look_at_the_start_finds_what_is_of_another_kind(
    tmp_path: Path, split: str, content: bytes, what: str | None
) -> None:
    source = write_source(tmp_path, split, content)
    with contextlib.ExitStack() as stack:
        if what is not None:
            stack.enter_context(pytest.raises(ArchiveError, match=re.escape(what)))
        require_start_of(source)


def test_a_look_at_the_start_reads_three_headers(tmp_path: Path) -> None:
    content = train_of(*((f"{wnid}.tar", bytes(50_000)) for wnid in (TENCH, GOLDFISH, TISSUE)))
    source = write_source(tmp_path, "train", content[:512] + INNER + content[512 + len(INNER) :])
    file = Counting(Path(source.archive).read_bytes())
    require_start(source, file)
    assert file.reads == [512, 512, 512]


names = st.one_of(
    st.sampled_from(
        [
            f"{TENCH}.tar",
            f"train/{GOLDFISH}.tar",
            IMAGE[0],
            f"{TENCH}_2.JPEG",
            validation_name(1),
            f"./{validation_name(2)}",
            "ILSVRC2012_test_00000001.JPEG",
            "folder/ILSVRC2012_test_00000002.JPEG",
        ]
    ),
    st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=150),
)
tars = st.builds(
    lambda members, format: tar_of(members, format=format),
    st.lists(st.tuples(names, st.binary(max_size=700)), max_size=4),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
trains = st.builds(
    train_of,
    st.tuples(st.just(f"{TENCH}.tar"), tars),
    st.tuples(st.sampled_from([f"{GOLDFISH}.tar", f"{TENCH}.tar"]), tars),
)


@given(
    split=st.sampled_from(SPLITS),
    content=st.one_of(tars, trains, st.binary(max_size=2000)),
    changes=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 255)), max_size=3),
    length=st.one_of(st.none(), st.integers(0, 20_000)),
    keep_member_path=st.booleans(),
)
@settings(deadline=None, max_examples=400)
def test_whatever_the_bytes_only_an_archive_error_comes_out_and_little_is_read(
    split: str,
    content: bytes,
    changes: list[tuple[int, int]],
    length: int | None,
    keep_member_path: bool,
) -> None:
    damaged = bytearray(content[:length])
    for position, flipped in changes:
        if damaged:
            damaged[position % len(damaged)] ^= flipped
    file = Counting(bytes(damaged))
    source = Source(split=split, archive=file.path, size=file.size, modified=0)
    with contextlib.suppress(ArchiveError):
        batches = [
            read_segment(segment, file, keep_member_path=keep_member_path)
            for segment in list_segments(source, file)
        ]
        assert_covers_each_byte_once(source, batches)
        for name, label in rows(batches):
            assert label == right_label(split, name.rpartition("/")[2])
        plan_split(source, batches)
    # Train's headers are walked twice, the outer and the inner ones.
    assert_bounded(file, walks=1 + (split == "train"))


def right_label(split: str, name: str) -> int:
    if split == "train":
        return labels.label_of_synset()[name.partition("_")[0]]
    if split == "validation":
        return labels.validation_labels()[int(name[15:23]) - 1]
    return -1
