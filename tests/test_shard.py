"""What becomes of images that are none or odd, in the shards of a whole conversion."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_imagenet import drawing, labels, space, storage
from tests import commands, tars
from tests.commands import Target

ONE = ("--splits=validation", "--num_shards=validation:5")
QUARANTINE = (*ONE, "--on_bad_image=quarantine")
NAMES = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 51)]
INFO = "dataset_info.json"


@functools.cache
def cmyk() -> bytes:
    """A CMYK image, which is converted to RGB."""
    painter = drawing.make_painter(seed=0, image_bytes=2000)
    return painter.cmyk(sorted(labels.CMYK_IMAGES)[0], ycck=False)


def gigapixels(data: bytes) -> bytes:
    """The image with a header that claims 65,000 x 65,000 pixels."""
    start = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    return data[: start + 5] + (65_000).to_bytes(2, "big") * 2 + data[start + 9 :]


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no bytes": (lambda data: b"", "empty"),
    "zeros": (lambda data: bytes(len(data)), "neither a JPEG nor a PNG"),
    "text": (lambda data: b"<html>not logged in</html>", "neither a JPEG nor a PNG"),
    "cut inside its header": (lambda data: data[:40], "without a frame header"),
    "gigapixels": (gigapixels, "65,000 x 65,000 pixels"),
    "a CMYK image that cannot be decoded": (
        lambda data: cmyk()[: len(cmyk()) // 2],
        "has no end-of-image mark",
    ),
}
SUSPECT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no end mark": (lambda data: data[:-2], "no end-of-image mark"),
    "bytes after it": (lambda data: data + b"thumbs", "6 bytes after its end-of-image mark"),
}


def damage(target: Target, changes: dict[int, Callable[[bytes], bytes]]) -> dict[str, bytes]:
    """Changes images by number, and returns all as they are now."""
    path = target.manual_dir / "ILSVRC2012_img_val.tar"
    content = path.read_bytes()
    members = {
        name.decode(): content[start : start + size] for name, start, size in tars.listed(content)
    }
    for number, change in changes.items():
        members[NAMES[number - 1]] = change(members[NAMES[number - 1]])
    path.write_bytes(tars.tar_of(members.items()))
    return members


def offset_of(target: Target, name: str) -> int:
    content = (target.manual_dir / "ILSVRC2012_img_val.tar").read_bytes()
    [offset] = [offset for found, offset, _ in tars.listed(content) if found == name.encode()]
    return offset


def images(target: Target) -> dict[str, tuple[bytes, int]]:
    """Image and label of each record, read with TensorFlow, by name."""
    import tensorflow as tf

    folder = target.info()["validation"]["filepathTemplate"].rpartition("/")[0]
    found = {}
    for shard in sorted((target.dataset / folder).glob("imagenet2012-validation.tfrecord-*")):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            name, image = (feature[key].bytes_list.value[0] for key in ("file_name", "image"))
            found[name.decode()] = (image, feature["label"].int64_list.value[0])
    return found


def result(target: Target) -> dict[str, Any]:
    return commands.results(target.dataset)["validation"]


@pytest.fixture
def untouched(target: Target, tmp_path: Path) -> Target:
    """The dataset of the same images before they are damaged."""
    found = Target(target.manual_dir, tmp_path / "untouched")
    found.convert(*ONE)
    return found


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_stops_the_run_with_archive_member_and_offset(
    target: Target, case: str
) -> None:
    change, reason = BAD[case]
    damage(target, {7: change})
    message = target.refused(*ONE, status=1)
    archive = target.manual_dir / "ILSVRC2012_img_val.tar"
    assert f"{archive}: member '{NAMES[6]}'" in message
    assert f"at byte {offset_of(target, NAMES[6]):,}" in message
    assert reason in message
    assert "--on_bad_image=quarantine" in message
    assert not (target.dataset / INFO).exists()


@pytest.mark.parametrize("case", BAD)
def test_quarantine_leaves_a_bad_image_out_and_keeps_it_apart(
    target: Target, untouched: Target, case: str
) -> None:
    change, reason = BAD[case]
    bad = damage(target, {7: change})[NAMES[6]]
    output = target.convert(*QUARANTINE)

    [folder] = (target.dataset / "quarantine").iterdir()
    [image, why] = sorted(folder.iterdir())
    assert (image.name, image.read_bytes()) == (NAMES[6], bad)
    assert why.name == f"{NAMES[6]}.reason.txt"
    for part in (str(target.manual_dir), f"at byte {offset_of(target, NAMES[6]):,}", reason):
        assert part in why.read_text()

    [listed] = result(target)["bad"]
    assert listed["file_name"] == NAMES[6]
    assert reason in listed["reason"]
    assert (result(target)["images"], result(target)["bad_kept"]) == (49, False)
    assert f"validation, bad, left out: {NAMES[6]}: {listed['reason']}" in output.splitlines()
    assert "validation: 49 of ILSVRC-2012's 50,000 images" in output.splitlines()

    files, before = (commands.dataset_files(one.dataset) for one in (target, untouched))
    [changed] = [name for name in target.shards() if files[name] != before[name]]
    lengths = untouched.info()["validation"]["shardLengths"]
    shorter = int(changed[-len("0-of-00005")])
    lengths[shorter] = str(int(lengths[shorter]) - 1)
    assert target.info()["validation"]["shardLengths"] == lengths
    kept = images(untouched)
    del kept[NAMES[6]]
    assert images(target) == kept


def test_a_bad_image_that_is_left_out_is_not_suspect_as_well(target: Target) -> None:
    damage(target, {7: BAD["a CMYK image that cannot be decoded"][0]})
    target.convert(*QUARANTINE)
    assert len(result(target)["bad"]) == 1
    assert result(target)["suspect"] == []


def test_keep_carries_a_bad_image_over_as_it_is(target: Target) -> None:
    members = damage(target, {number: change for number, (change, _) in enumerate(BAD.values(), 7)})
    output = target.convert(*ONE, "--on_bad_image=keep", "--max_bad_images=0")
    found = images(target)
    assert {name: image for name, (image, _) in found.items()} == members
    assert len(result(target)["bad"]) == len(BAD)
    assert result(target)["bad_kept"]
    reason = result(target)["bad"][0]["reason"]
    assert f"validation, bad, kept: {NAMES[6]}: {reason}" in output.splitlines()
    assert "ILSVRC-2012's 50,000 images" in output
    assert not (target.dataset / "quarantine").exists()


@pytest.mark.parametrize("on_bad_image", ["fail", "quarantine", "keep"])
def test_suspect_images_are_kept_and_named(target: Target, on_bad_image: str) -> None:
    changes = {number: change for number, (change, _) in enumerate(SUSPECT.values(), 7)}
    members = damage(target, changes)
    output = target.convert(*ONE, f"--on_bad_image={on_bad_image}", "--max_bad_images=0")
    assert {name: image for name, (image, _) in images(target).items()} == members
    assert result(target)["bad"] == []
    for found, name, (_, reason) in zip(
        result(target)["suspect"], NAMES[6:], SUSPECT.values(), strict=False
    ):
        assert (found["file_name"], reason in found["reason"]) == (name, True)
        assert f"validation, suspect: {name}: {found['reason']}" in output.splitlines()
    assert len(result(target)["suspect"]) == len(SUSPECT)


@pytest.mark.parametrize("case", SUSPECT)
def test_strict_treats_suspect_as_bad(target: Target, case: str) -> None:
    change, reason = SUSPECT[case]
    damage(target, {7: change})
    message = target.refused(*ONE, "--strict", status=1)
    assert f"member '{NAMES[6]}'" in message
    assert reason in message
    target.convert(*QUARANTINE, "--strict")
    assert [found["file_name"] for found in result(target)["bad"]] == [NAMES[6]]
    assert result(target)["suspect"] == []
    assert NAMES[6] not in images(target)


def test_keep_with_the_same_fingerprint_gives_the_same_bytes(
    target: Target, tmp_path: Path
) -> None:
    """Whatever counts as bad; one goes on with the other's shards."""
    damage(target, {7: lambda data: cmyk() + b"thumbs"})
    strict = Target(target.manual_dir, tmp_path / "strict")
    target.convert(*ONE, "--on_bad_image=keep")
    strict.convert(*ONE, "--on_bad_image=keep", "--strict")
    if result(target)["fingerprint"] == result(strict)["fingerprint"]:
        assert images(target) == images(strict)


def scramble(data: bytes) -> bytes:
    """Damages the pixels of an image alone: an invalid code in the middle of its scan."""
    middle = (data.rindex(b"\xff\xda") + len(data)) // 2
    return data[:middle] + b"\xff\xd0" * 20 + data[middle + 40 :]


@pytest.mark.parametrize(
    ("level", "bad", "suspect"),
    [("none", [], []), ("header", [NAMES[2]], [NAMES[3]]), ("decode", [NAMES[2]], NAMES[3:5])],
)
def test_each_level_finds_what_it_promises(
    target: Target, level: str, bad: list[str], suspect: list[str]
) -> None:
    members = damage(target, {3: BAD["zeros"][0], 4: SUSPECT["no end mark"][0], 5: scramble})
    target.convert(*QUARANTINE, f"--check_images={level}")
    found = result(target)
    assert found["level"] == level
    assert [one["file_name"] for one in found["bad"]] == bad
    assert [one["file_name"] for one in found["suspect"]] == suspect
    kept = {name: image for name, image in members.items() if name not in bad}
    assert {name: image for name, (image, _) in images(target).items()} == kept


def test_colours_are_fixed_without_checks_too(target: Target) -> None:
    damage(target, {7: lambda data: cmyk()})
    target.convert(*ONE, "--check_images=none")
    assert result(target)["fixes"] == [{"file_name": NAMES[6], "kind": "CMYK"}]
    assert images(target)[NAMES[6]][0] != cmyk()


def test_above_the_limit_nothing_is_published_and_a_higher_one_rewrites_no_shard(
    target: Target,
) -> None:
    damage(target, dict.fromkeys((7, 8), BAD["zeros"][0]))  # in two shards
    message = target.refused(*QUARANTINE, "--max_bad_images=1", status=1)
    assert "2 bad images were left out, more than --max_bad_images=1" in message
    assert not (target.dataset / INFO).exists()
    before = commands.stamps(target.dataset)
    assert "5 of 5 shards kept" in target.convert(*QUARANTINE, "--max_bad_images=2")
    assert commands.written_since(before, target.dataset) == set()
    assert len(result(target)["bad"]) == 2
    assert "2 bad images" in target.refused(*QUARANTINE, "--max_bad_images=1", status=1)


def test_a_shard_alone_may_be_above_the_limit(target: Target) -> None:
    damage(target, dict.fromkeys(range(1, 51), BAD["zeros"][0]))
    message = target.refused(*QUARANTINE, "--max_bad_images=3", status=1)
    assert "number 4 in one shard, which is more than --max_bad_images=3" in message
    assert not (target.dataset / INFO).exists()


def test_a_split_of_which_no_image_is_left_is_not_published(target: Target) -> None:
    damage(target, dict.fromkeys(range(1, 51), BAD["zeros"][0]))
    message = target.refused(*QUARANTINE, status=1)
    assert "no image is left of the validation split" in message
    assert not (target.dataset / INFO).exists()


def settle(target: Target) -> None:
    """Waits until shards are in their places that a failed run was still finishing."""
    deadline = time.monotonic() + 10
    while list(target.dataset.rglob("*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_run_that_stopped_at_a_bad_image_is_taken_up_by_quarantine(target: Target) -> None:
    last = max(NAMES, key=lambda name: hashlib.md5(f"validation{name}".encode()).digest())
    damage(target, {NAMES.index(last) + 1: BAD["zeros"][0]})
    target.refused(*ONE, status=1)
    settle(target)
    before = commands.stamps(target.dataset)
    written = target.shards()
    assert written
    target.convert(*QUARANTINE)
    assert commands.written_since(before, target.dataset) == target.shards() - written
    assert result(target)["kept_shards"] == len(written)
    assert result(target)["images"] == 49


def test_a_dataset_with_images_left_out_is_never_what_fail_publishes(target: Target) -> None:
    damage(target, {7: BAD["zeros"][0]})
    target.convert(*QUARANTINE)
    (target.dataset / INFO).unlink()
    assert "is a bad image" in target.refused(*ONE, status=1)
    assert not (target.dataset / INFO).exists()
    target.convert(*QUARANTINE)
    before = commands.stamps(target.dataset)
    assert "is a bad image" in target.refused(*ONE, status=1)
    assert commands.written_since(before, target.dataset) == set()
    assert "nothing to do" in target.convert(*QUARANTINE)


def test_a_higher_level_checks_again_and_gives_the_same_bytes_in_place(target: Target) -> None:
    damage(target, {5: scramble})
    target.convert(*ONE)
    assert result(target)["suspect"] == []
    before, files = commands.stamps(target.dataset), commands.dataset_files(target.dataset)
    assert "kept" not in target.convert(*ONE, "--check_images=decode")
    assert commands.written_since(before, target.dataset) == target.shards()
    assert len(target.shards()) == 5
    assert commands.dataset_files(target.dataset) == files
    assert [found["file_name"] for found in result(target)["suspect"]] == [NAMES[4]]
    assert "nothing to do" in target.convert(*ONE, "--check_images=decode")


def test_a_missing_member_moves_no_label_and_is_counted(target: Target, untouched: Target) -> None:
    path = target.manual_dir / "ILSVRC2012_img_val.tar"
    members = damage(target, {})
    del members[NAMES[20]]
    path.write_bytes(tars.tar_of(members.items()))
    output = target.convert(*ONE)
    assert "validation: 49 of ILSVRC-2012's 50,000 images" in output.splitlines()
    expected = images(untouched)
    del expected[NAMES[20]]
    assert images(target) == expected
    for name, (_, label) in images(target).items():
        assert label == labels.validation_labels()[NAMES.index(name)]


@pytest.mark.parametrize("change", ["time", "size"])
def test_an_archive_that_changes_before_it_is_read_is_an_error(
    target: Target, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    archive = target.manual_dir / "ILSVRC2012_img_val.tar"
    require_room = space.require_room

    def change_archive(*arguments: Any, **named: Any) -> None:
        """Runs after the run has looked at its archives."""
        require_room(*arguments, **named)
        if change == "size":
            with archive.open("ab") as file:
                file.write(bytes(512))
        os.utime(archive)

    monkeypatch.setattr(space, "require_room", change_archive)
    assert f"{archive} changed during the run" in target.refused(*ONE, status=1)
    assert not (target.dataset / INFO).exists()


@pytest.mark.parametrize("door", ["read_into", "will_read"], ids=["headers", "images"])
def test_an_archive_that_changes_while_it_is_read_is_an_error(
    target: Target, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    archive = target.manual_dir / "ILSVRC2012_img_val.tar"
    original = getattr(storage.ArchiveFile, door)

    def read_and_change(file: storage.ArchiveFile, offset: int, what: Any) -> None:
        original(file, offset, what)
        os.utime(archive)

    def changing(*arguments: Any, **named: Any) -> None:
        """Runs after the run has looked at its archives."""
        require_room(*arguments, **named)
        monkeypatch.setattr(storage.ArchiveFile, door, read_and_change)

    require_room = space.require_room
    monkeypatch.setattr(space, "require_room", changing)
    assert f"{archive} changed during the run" in target.refused(*ONE, status=1)
    assert not target.shards()
    assert not (target.dataset / INFO).exists()
