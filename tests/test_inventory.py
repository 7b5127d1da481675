"""Archives become segments and members: places, names, labels; and names that tell no label."""

from __future__ import annotations

import io
import itertools
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from tensorflow_datasets.core.download import extractor, resource

from beam_imagenet import labels
from beam_imagenet.errors import ArchiveError
from beam_imagenet.model import Source
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
    FORMATS,
    Format,
    extended,
    header,
    listed,
    padded,
    pax_record,
    special,
    tar_of,
    train_tar,
    write_source,
)


def flat(
    folder: Path, split: str, names: Sequence[str], *, format: Format = tarfile.GNU_FORMAT
) -> Source:
    return write_source(folder, split, tar_of([(name, b"data") for name in names], format=format))


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


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("folder", ["", "./", "train/", "./a/b/"])
def test_the_order_of_members_and_their_folders_change_no_label(
    tmp_path: Path, format: Format, folder: str
) -> None:
    wanted = sorted(
        (f"{wnid}_{number}.JPEG", label)
        for wnid, label in ((TENCH, 0), (GOLDFISH, 1), (TISSUE, 999))
        for number in (3, 20)
    )
    for order in itertools.permutations((TENCH, GOLDFISH, TISSUE)):
        content = train_tar(
            [
                (
                    f"{folder}{wnid}.tar",
                    [(f"{folder}{wnid}_{number}.JPEG", b"data") for number in (20, 3)],
                )
                for wnid in order
            ],
            format=format,
        )
        assert converted(write_source(tmp_path, "train", content)) == wanted


@pytest.mark.parametrize(
    "head",
    [
        header(validation_name(2).encode(), size=3, kind=b"\0", magic=b""),
        header(validation_name(2).encode(), size=3, prefix=b"p" * 155),
        header(validation_name(2).encode(), size=b"\x80" + bytes(10) + b"\x03"),
        extended(b"L", b"x" * 200 + b"/" + validation_name(2).encode() + b"\0")
        + header(b"x" * 100, size=3),
        extended(b"x", pax_record(b"path", f"./{validation_name(2)}".encode()))
        + header(b"x", size=3),
        extended(b"g", pax_record(b"comment", b"all"))
        + extended(b"x", pax_record(b"size", b"3"))
        + header(validation_name(2).encode()),
        header(b"./", kind=b"5") + header(f"./{validation_name(2)}".encode(), size=3),
    ],
    ids=["v7", "ustar prefix", "base-256", "gnu long name", "pax path", "pax size", "folder"],
)
def test_headers_of_other_writers_keep_their_labels(tmp_path: Path, head: bytes) -> None:
    source = write_source(tmp_path, "validation", head + padded(b"abc") + END_MARK)
    [batch] = read(source)
    assert rows([batch]) == [(validation_name(2), labels.validation_labels()[1])]
    assert (batch.offsets.tolist(), batch.sizes.tolist()) == ([len(head)], [3])
    assert_covers_each_byte_once(source, [batch])


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
    require_start_of(source)  # what comes second is no business of a look at the start


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
