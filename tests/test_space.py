"""Whether a disk has room is told before a run, and no dataset takes more than it is said to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from beam_imagenet import space
from beam_imagenet.errors import StorageError
from beam_imagenet.model import SPLITS, Source
from beam_imagenet.plan import plan_split
from beam_imagenet.tfrecord import FRAME_BYTES
from tests.inspections import has_free, sample
from tests.inventories import read
from tests.tars import tar_of, write_source


def archive_of(size: int) -> Source:
    return Source(split="train", archive="train.tar", size=size, modified=0)


def test_the_dataset_takes_no_more_than_its_archives(archives: Path, tmp_path: Path) -> None:
    long_names = tar_of(
        [(f"{'d' * 95}/ILSVRC2012_test_{number:08}.JPEG", b"") for number in range(1, 200)]
    )
    sources = [sample(archives, split) for split in SPLITS]
    for source in [*sources, write_source(tmp_path, "test", long_names)]:
        plan, _ = plan_split(source, read(source, keep_member_path=True))
        dataset = sum(shard.num_bytes + FRAME_BYTES * shard.num_examples for shard in plan.shards)
        assert dataset <= space.needed_bytes([source])
    assert space.needed_bytes(sources) == sum(source.size for source in sources)


def test_room_is_that_of_the_nearest_folder_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = has_free(monkeypatch, 12_345)
    assert space.room(tmp_path / "imagenet2012" / "5.1.0") == 12_345
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    space.room(tmp_path / "there")
    space.room(tmp_path / "there" / "file")
    assert asked == [tmp_path, tmp_path / "there", tmp_path / "there"]


def test_room_that_cannot_be_told_is_an_error_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    with pytest.raises(StorageError, match="cannot be told: Permission denied"):
        space.room(tmp_path)


@pytest.mark.parametrize(
    ("free", "already", "fits"),
    [
        (168_000_000_000, 0, True),
        (167_999_999_999, 0, False),
        (12_800_000_000, 155_200_000_000, True),
        (12_300_000_000, 155_200_000_000, False),
        (0, 168_000_000_000, True),
        (0, 200_000_000_000, True),
        (0, 167_999_999_999, False),
    ],
)
def test_a_run_needs_room_for_what_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, already: int, fits: bool
) -> None:
    has_free(monkeypatch, free)
    sources = [archive_of(148_000_000_000), archive_of(20_000_000_000)]
    if fits:
        space.require_room(sources, tmp_path, already=already)
        return
    with pytest.raises(StorageError, match="Make room, or choose another --data_dir"):
        space.require_room(sources, tmp_path, already=already)


def test_too_little_room_is_told_in_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_free(monkeypatch, 12_300_000_000)
    with pytest.raises(StorageError) as caught:
        space.require_room([archive_of(168 * 10**9)], tmp_path, already=155_200_000_000)
    assert str(caught.value) == (
        f"The dataset needs up to 168.0 GB in {tmp_path} (155.2 GB of them are there already), but only "
        "12.3 GB are free. Make room, or choose another --data_dir."
    )
    with pytest.raises(StorageError) as caught:
        space.require_room([archive_of(168 * 10**9)], tmp_path, already=0)
    assert f"168.0 GB in {tmp_path}, but only" in str(caught.value)
