"""The full check of archives: whether they are official, repacked, incomplete or damaged."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import pytest

from beam_imagenet import inspection, labels
from beam_imagenet.inspection import Inspection
from beam_imagenet.model import SPLITS, Source
from tests.inspections import (
    FILES,
    fully,
    make_official,
    sample,
    sha256,
    validation_tar,
    whole_train,
)
from tests.inventories import TENCH
from tests.tars import END_MARK, header, listed, tar_of, train_tar, write_source


@functools.cache  # tarfile would take seconds for 50,000
def validation_head(number: int) -> bytes:
    """An empty validation image."""
    return header(f"ILSVRC2012_val_{number:08}.JPEG".encode())


def expect_images(monkeypatch: pytest.MonkeyPatch, split: str, count: int) -> None:
    monkeypatch.setitem(labels.IMAGES, split, count)


@pytest.mark.parametrize("split", SPLITS)
def test_an_archive_of_the_official_checksum_is_official(
    archives: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    source = sample(archives, split)
    make_official(monkeypatch, source, size=source.size, checksum=sha256(source))
    assert fully(source) == Inspection(source=source, verdict="official")


@pytest.mark.parametrize(("split", "count"), [("train", 1100), ("validation", 60), ("test", 60)])
def test_all_images_under_another_checksum_are_a_repacked_archive(
    archives: Path, monkeypatch: pytest.MonkeyPatch, split: str, count: int
) -> None:
    source = sample(archives, split)
    expect_images(monkeypatch, split, count)
    found = fully(source)
    assert found.verdict == "complete but repacked"
    assert found.is_usable
    assert [text.startswith("The only test archive whose") for text in found.texts] == (
        [True] if split == "test" else []
    )


def test_the_official_size_with_another_checksum_points_to_damaged_images(
    archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sample(archives, "validation")
    expect_images(monkeypatch, "validation", 60)
    make_official(monkeypatch, source, size=source.size)
    found = fully(source)
    assert found.verdict == "complete but repacked"
    [text] = found.texts
    assert "official size and yet another checksum, so images in it may be damaged" in text


@pytest.mark.parametrize(
    ("absent", "text"),
    [
        ([50_000], "Missing: ILSVRC2012_val_00050000.JPEG."),
        (
            [1, 3, 5, 7, 9],
            "Missing: "
            + ", ".join(f"ILSVRC2012_val_{number:08}.JPEG" for number in (1, 3, 5, 7, 9))
            + ".",
        ),
        (
            list(range(11, 1013)),
            "Missing: "
            + ", ".join(f"ILSVRC2012_val_{number:08}.JPEG" for number in range(11, 16))
            + " and 997 more.",
        ),
    ],
    ids=["one", "five", "more"],
)
def test_missing_validation_images_are_counted_and_named(
    tmp_path: Path, absent: list[int], text: str
) -> None:
    gone = set(absent)
    there = [number for number in range(1, 50_001) if number not in gone]
    content = b"".join(validation_head(number) for number in reversed(there)) + END_MARK
    found = fully(write_source(tmp_path, "validation", content))
    assert found.verdict == f"whole, but holds {len(there):,} of 50,000 images"
    assert found.texts == (text,)
    assert found.is_usable


def test_missing_test_images_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_images(monkeypatch, "test", 4)
    names = [f"ILSVRC2012_test_{number:08}.JPEG" for number in (1, 2, 4)]
    found = fully(write_source(tmp_path, "test", tar_of([(name, b"1") for name in names])))
    assert found.verdict == "whole, but holds 3 of 4 images"
    assert found.texts[0] == "Missing: ILSVRC2012_test_00000003.JPEG."


def test_more_images_than_the_official_archive_has_are_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_images(monkeypatch, "test", 1)
    names = [f"ILSVRC2012_test_{number:08}.JPEG" for number in (1, 2)]
    found = fully(write_source(tmp_path, "test", tar_of([(name, b"1") for name in names])))
    assert found.verdict == "whole, but holds 2 of 1 images"


def test_a_train_archive_is_complete_with_all_synsets_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_images(monkeypatch, "train", 1000)
    whole = fully(write_source(tmp_path, "train", whole_train()))
    assert (whole.verdict, whole.texts) == ("complete but repacked", ())
    # As many images, of one synset less.
    inner = [
        (f"{wnid}.tar", [(f"{wnid}_{number}.JPEG", b"") for number in range(1 + (wnid == TENCH))])
        for wnid in labels.synsets()[:-1]
    ]
    lacking = fully(write_source(tmp_path, "train", train_tar(inner)))
    assert lacking.verdict == "whole, but holds 1,000 of 1,000 images"
    assert lacking.texts == (f"Missing: {labels.synsets()[-1]}.",)


def test_what_is_odd_but_no_damage_is_told(tmp_path: Path) -> None:
    inner = tar_of([(f"{TENCH}_1.JPEG", b"1")])[:1024]
    other = labels.synsets()[1]
    content = tar_of([(f"{TENCH}.tar", inner), (f"{other}.tar", END_MARK)])
    found = fully(write_source(tmp_path, "train", content))
    assert found.verdict == "whole, but holds 1 of 1,281,167 images"
    assert found.texts[0].startswith(f"Missing: {other}, {labels.synsets()[2]}, ")
    assert f"{TENCH}.tar in " in found.texts[1]
    assert "has no end mark" in found.texts[1]
    assert f"{other}.tar in " in found.texts[2]
    assert "holds no images" in found.texts[2]
    assert len(found.texts) == 3


def test_damage_between_the_ends_is_found_by_the_full_check_alone(
    archives: Path, tmp_path: Path
) -> None:
    content = bytearray((archives / FILES["train"]).read_bytes())
    _, offset, _ = listed(bytes(content))[500]
    content[offset + 3] ^= 1
    source = write_source(tmp_path, "train", bytes(content))
    assert inspection.quick(source).is_usable
    found = fully(source)
    assert found.verdict == "damaged"
    assert not found.is_usable
    [text] = found.texts
    assert text.startswith(f"{labels.synsets()[500]}.tar in {source.archive} (at byte {offset:,}) ")
    assert f"at byte {offset:,}, here is no tar header" in text


def test_a_train_archive_cut_off_between_two_synsets_is_found_by_the_full_check(
    tmp_path: Path,
) -> None:
    content = whole_train(leave_out=997)
    _, offset, size = listed(content)[1]
    source = write_source(tmp_path, "train", content[: offset + size])
    assert inspection.quick(source).is_usable  # it ends with a synset's own end mark
    found = fully(source)
    assert found.verdict == "damaged"
    assert f"at byte {offset + size:,}, the archive ends without an end mark" in found.texts[0]


def test_a_name_that_is_there_twice_is_damage(tmp_path: Path) -> None:
    found = fully(write_source(tmp_path, "validation", validation_tar([1, 2, 1])))
    assert found.verdict == "damaged"
    assert "is there twice, with data at bytes 512 and 2,560" in found.texts[0]


def test_shards_that_were_asked_for_are_no_damage(tmp_path: Path) -> None:
    source = write_source(tmp_path, "validation", validation_tar([1, 2]))
    many = Source(
        split=source.split,
        archive=source.archive,
        size=source.size,
        modified=source.modified,
        num_shards=1000,
    )
    assert fully(many).is_usable


@pytest.mark.parametrize("read_bytes", [512, 1000, 5120, 10_240, 4 << 20])
def test_the_checksum_is_that_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    source = write_source(tmp_path, "validation", validation_tar(range(1, 9)))
    assert source.size == 10_240
    monkeypatch.setattr(inspection, "_READ_BYTES", read_bytes)
    make_official(monkeypatch, source, checksum=sha256(source))
    assert fully(source).verdict == "official"


def test_progress_goes_to_the_end_in_both_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path, "train", whole_train(leave_out=997))
    monkeypatch.setattr(inspection, "_READ_BYTES", 1000)
    told: list[tuple[str, int]] = []
    inspection.full(source, lambda stage, done: told.append((stage, done)))
    stages = {
        stage: [done for _, done in group]
        for stage, group in itertools.groupby(told, key=lambda item: item[0])
    }
    assert list(stages) == ["headers", "checksum"]
    for done in stages.values():
        assert done == sorted(set(done))
        assert done[-1] == source.size
    assert len(stages["headers"]) == 3
    assert len(stages["checksum"]) == -(-source.size // 1000)
