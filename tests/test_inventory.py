"""Archives to segments and members: names, labels and places, and what is no ILSVRC-2012."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from tensorflow_datasets.core.download import extractor, resource

from beam_imagenet import labels
from beam_imagenet.errors import ArchiveError
from beam_imagenet.inventory import list_segments, read_segment
from beam_imagenet.model import MemberBatch, Segment, Source
from beam_imagenet.storage import ArchiveFile
from tests.tars import (
    FORMATS,
    Format,
    header,
    listed,
    special,
    tar_of,
    train_tar,
    write_source,
)

TENCH, GOLDFISH, TISSUE = "n01440764", "n01443537", "n15075141"
TRAIN = [
    (f"{TISSUE}.tar", [(f"{TISSUE}_{number}.JPEG", b"t" * number) for number in (7, 0, 513)]),
    (f"{TENCH}.tar", [(f"{TENCH}_{number}.JPEG", b"f" * 512) for number in (10026, 1)]),
    (f"{GOLDFISH}.tar", []),
]


def validation_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}.JPEG"


def segments_of(source: Source) -> list[Segment]:
    with ArchiveFile(source.archive) as archive:
        return list(list_segments(source, archive))


def read(source: Source, *, keep_member_path: bool = False) -> list[MemberBatch]:
    with ArchiveFile(source.archive) as archive:
        return [
            read_segment(segment, archive, keep_member_path=keep_member_path)
            for segment in list_segments(source, archive)
        ]


def rows(batches: Sequence[MemberBatch]) -> list[tuple[str, int]]:
    """Name and label of each member, in archive order."""
    return [
        (name.decode(), label)
        for batch in batches
        for name, label in zip(batch.names.tolist(), batch.labels.tolist(), strict=True)
    ]


def flat(
    folder: Path, split: str, names: Sequence[str], *, format: Format = tarfile.GNU_FORMAT
) -> Source:
    return write_source(folder, split, tar_of([(name, b"data") for name in names], format=format))


def assert_covers_each_byte_once(source: Source, batches: Sequence[MemberBatch]) -> None:
    assert [batch.start for batch in batches] == [0, *(batch.stop for batch in batches[:-1])]
    assert batches[-1].stop == source.size
    for batch in batches:
        data = sum(-(-size // 512) * 512 for size in batch.sizes.tolist())
        assert batch.overhead == batch.stop - batch.start - data


def test_train_members_carry_the_label_of_their_synset(tmp_path: Path) -> None:
    source = write_source(tmp_path, "train", train_tar(TRAIN))
    batches = read(source)
    assert rows(batches) == [
        (f"{TISSUE}_7.JPEG", 999),
        (f"{TISSUE}_0.JPEG", 999),
        (f"{TISSUE}_513.JPEG", 999),
        (f"{TENCH}_10026.JPEG", 0),
        (f"{TENCH}_1.JPEG", 0),
    ]


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_offsets_and_sizes_are_those_of_the_images_in_the_archive(
    tmp_path: Path, format: Format
) -> None:
    content = train_tar(TRAIN, format=format)
    source = write_source(tmp_path, "train", content)
    images = dict(image for _, images in TRAIN for image in images)
    for batch in read(source):
        for name, offset, size in zip(
            batch.names.tolist(), batch.offsets.tolist(), batch.sizes.tolist(), strict=True
        ):
            assert content[offset : offset + size] == images.pop(name.decode())
    assert not images


def test_columns_have_the_types_that_the_shuffle_carries(tmp_path: Path) -> None:
    for batch in read(write_source(tmp_path, "train", train_tar(TRAIN))):
        columns = (batch.offsets, batch.sizes, batch.labels)
        assert batch.names.dtype.kind == "S"
        assert [column.dtype.name for column in columns] == ["int64", "uint32", "int16"]


def test_train_segments_are_the_synsets_and_tile_the_archive(tmp_path: Path) -> None:
    source = write_source(tmp_path, "train", train_tar(TRAIN))
    segments = segments_of(source)
    assert [f"{segment.wnid}.tar" for segment in segments] == [name for name, _ in TRAIN]
    assert_covers_each_byte_once(source, read(source))
    inner = listed(Path(source.archive).read_bytes())
    bounds = [(segment.members_start, segment.members_stop) for segment in segments]
    assert bounds == [(offset, offset + size) for _, offset, size in inner]


def test_an_inner_archive_may_lie_in_a_folder_and_need_no_end_mark(tmp_path: Path) -> None:
    inner = tar_of([(f"{TENCH}_1.JPEG", b"1")])[:1024]
    outer = tar_of([special("train", tarfile.DIRTYPE), (f"./train/{TENCH}.tar", inner)])
    source = write_source(tmp_path, "train", outer)
    batches = read(source)
    assert rows(batches) == [(f"{TENCH}_1.JPEG", 0)]
    assert_covers_each_byte_once(source, batches)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_flat_archive_is_one_segment(tmp_path: Path, split: str) -> None:
    source = flat(tmp_path, split, [f"ILSVRC2012_{split[:4].replace('vali', 'val')}_00000001.JPEG"])
    [segment] = segments_of(source)
    assert (segment.start, segment.stop, segment.wnid) == (0, source.size, None)
    assert_covers_each_byte_once(source, read(source))


def test_validation_labels_go_by_number_not_by_position(tmp_path: Path) -> None:
    numbers = [50_000, 4, 1, 3, 49_999]
    source = flat(tmp_path, "validation", [validation_name(number) for number in numbers])
    expected = [labels.validation_labels()[number - 1] for number in numbers]
    assert rows(read(source)) == [
        (validation_name(number), label) for number, label in zip(numbers, expected, strict=True)
    ]
    wnids = [labels.synsets()[label] for label in expected]
    assert wnids[1:4] == ["n04263257", "n01751748", "n02105855"]  # images 4, 1, 3


def test_test_images_have_no_label(tmp_path: Path) -> None:
    names = ["ILSVRC2012_test_00000002.JPEG", "ILSVRC2012_test_00100000.JPEG"]
    assert rows(read(flat(tmp_path, "test", names))) == [(name, -1) for name in names]


PATHS = ("{}", "./{}", "test/{}", "./test//{}", "a/../test/{}", "test/./sub/{}", "tést/{}")


@pytest.mark.parametrize("path", PATHS)
def test_file_name_is_the_base_name_or_the_path_as_tfds_reads_it(tmp_path: Path, path: str) -> None:
    base = "ILSVRC2012_test_00000001.JPEG"
    source = flat(tmp_path, "test", [path.format(base)], format=tarfile.PAX_FORMAT)
    assert rows(read(source)) == [(base, -1)]
    content = Path(source.archive).read_bytes()
    tfds = extractor.iter_archive(io.BytesIO(content), resource.ExtractMethod.TAR)
    assert rows(read(source, keep_member_path=True)) == [(name, -1) for name, _ in tfds]


@pytest.mark.parametrize("path", ["../{}", "/absolute/{}", ".hidden/{}", "a/../../{}"])
def test_a_path_that_tfds_passes_over_silently_is_refused(tmp_path: Path, path: str) -> None:
    name = path.format("ILSVRC2012_test_00000001.JPEG")
    source = flat(tmp_path, "test", ["ILSVRC2012_test_00000002.JPEG", name])
    content = Path(source.archive).read_bytes()
    assert len(list(extractor.iter_archive(io.BytesIO(content), resource.ExtractMethod.TAR))) == 1
    with pytest.raises(ArchiveError, match=re.escape(f"member {name!r} at byte 1,024 ")):
        read(source, keep_member_path=True)


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("validation", "ILSVRC2012_val_00000000.JPEG"),
        ("validation", "ILSVRC2012_val_00050001.JPEG"),
        ("validation", "ILSVRC2012_val_1.JPEG"),
        ("validation", "ILSVRC2012_val_00000001.JPEG.bak"),
        ("validation", "ILSVRC2012_val_00000001.jpeg"),
        ("validation", "ILSVRC2012_test_00000001.JPEG"),
        ("validation", "._ILSVRC2012_val_00000001.JPEG"),
        ("validation", "readme.txt"),
        ("test", "ILSVRC2012_val_00000001.JPEG"),
        ("test", "ILSVRC2012_test_000000001.JPEG"),
        ("test", "n01440764_1.JPEG"),
    ],
)
@pytest.mark.parametrize("keep_member_path", [False, True])
def test_a_name_that_tells_no_label_is_refused(
    tmp_path: Path, split: str, name: str, keep_member_path: bool
) -> None:
    known = (
        "ILSVRC2012_val_00000002.JPEG" if split == "validation" else "ILSVRC2012_test_00000002.JPEG"
    )
    source = flat(tmp_path, split, [known, f"folder/{name}"])
    with pytest.raises(
        ArchiveError, match=re.escape(f"member 'folder/{name}' at byte 1,024")
    ) as caught:
        read(source, keep_member_path=keep_member_path)
    assert str(caught.value).startswith(source.archive)
    assert f"of the {split} split" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [f"{GOLDFISH}_1.JPEG", f"{TENCH}.JPEG", f"{TENCH}_1.JPEG~", f"{TENCH}_x.JPEG", "Thumbs.db"],
)
def test_a_name_of_another_synset_is_refused(tmp_path: Path, name: str) -> None:
    content = train_tar([(f"{TENCH}.tar", [(f"{TENCH}_1.JPEG", b"1"), (name, b"2")])])
    source = write_source(tmp_path, "train", content)
    where = f"{source.archive} (in {TENCH}.tar): member {name!r} at byte 1,536 "
    with pytest.raises(ArchiveError, match=re.escape(where)):
        read(source)


@pytest.mark.parametrize(
    "name",
    ["n00000000.tar", TENCH, f"{TENCH}.tar.gz", f"{TENCH}_1.JPEG", "readme.txt", f"{TENCH}.TAR"],
)
def test_an_inner_archive_of_no_known_synset_is_refused(tmp_path: Path, name: str) -> None:
    content = train_tar([TRAIN[0], (f"folder/{name}", [])])
    source = write_source(tmp_path, "train", content)
    second = listed(content)[1][1] - 512
    where = f"{source.archive}: member 'folder/{name}' at byte {second:,} "
    with pytest.raises(ArchiveError, match=re.escape(where)):
        segments_of(source)


def test_a_train_archive_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"train\.tar holds no synset archives"):
        segments_of(write_source(tmp_path, "train", tar_of([])))


def test_damage_in_an_inner_archive_is_told_by_its_place_in_the_outer(tmp_path: Path) -> None:
    content = bytearray(train_tar(TRAIN))
    broken = listed(bytes(content))[1][1] + 1024
    content[broken + 20] ^= 1
    source = write_source(tmp_path, "train", bytes(content))
    with pytest.raises(ArchiveError, match=f"^{re.escape(source.archive)} .* at byte {broken:,}, "):
        read(source)


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


def test_a_path_that_is_no_utf_8_is_refused_where_it_is_kept(tmp_path: Path) -> None:
    head = header(b"t\xe9st/ILSVRC2012_test_00000001.JPEG", size=0)
    source = write_source(tmp_path, "test", head + bytes(1024))
    assert rows(read(source)) == [("ILSVRC2012_test_00000001.JPEG", -1)]
    with pytest.raises(
        ArchiveError, match=r"st/ILSVRC2012_test_00000001.JPEG' at byte 0 has a path"
    ):
        read(source, keep_member_path=True)


@pytest.mark.parametrize(("length", "accepted"), [(255, True), (256, False)])
def test_a_file_name_has_255_bytes_at_most(tmp_path: Path, length: int, accepted: bool) -> None:
    base = "/ILSVRC2012_test_00000001.JPEG"
    source = flat(tmp_path, "test", ["é" * 50 + "p" * (length - 100 - len(base)) + base])
    assert len(read(source)) == 1
    if accepted:
        [batch] = read(source, keep_member_path=True)
        assert len(batch.names[0]) == length
    else:
        with pytest.raises(ArchiveError, match="at byte 0 has a path that cannot be a file_name"):
            read(source, keep_member_path=True)


def test_a_member_larger_than_any_photograph_is_refused(tmp_path: Path) -> None:
    size = (1 << 30) + 1
    path = tmp_path / "test.tar"
    with path.open("wb") as file:
        file.write(header(b"ILSVRC2012_test_00000001.JPEG", size=size))
        file.truncate(512 + size + 511 + 1024)
    source = Source(split="test", archive=str(path), size=path.stat().st_size)
    with pytest.raises(ArchiveError, match="at byte 0 claims 1,073,741,825 bytes"):
        read(source)
