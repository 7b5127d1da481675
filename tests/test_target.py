"""What a run finds at its target decides what it writes: nothing, what is missing, or all elsewhere."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL
import pytest

from beam_imagenet import local_runner, options, storage
from beam_imagenet import target as target_module
from beam_imagenet.errors import UsageError
from tests import commands, tars
from tests.commands import Target

ONE = ("--splits=validation", "--num_shards=validation:5")
SHARD = "imagenet2012-validation.tfrecord-00002-of-00005"
INFO = "dataset_info.json"


def archive(target: Target, name: str = "val") -> Path:
    return target.manual_dir / f"ILSVRC2012_img_{name}.tar"


def touch(path: Path) -> None:
    """Changes a file's time and no byte of it."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def begin(target: Target, *options: str) -> None:
    """Leaves what a run leaves that was killed right before it published."""
    target.convert(*options)
    (target.dataset / INFO).unlink()


def state(target: Target, name: str) -> Path:
    """A file that runs keep for the next one, by the end of its name."""
    [path] = (target.dataset / commands.STATE_FOLDER).rglob(f"*{name}")
    return path


def test_a_dataset_that_is_complete_is_left_alone(target: Target) -> None:
    target.convert(*ONE)
    before = commands.stamps(target.dataset)
    output = target.convert(*ONE)
    assert output.splitlines() == [
        f"{target.dataset} is complete, and made from these archives with these options: nothing to do."
    ]
    assert commands.stamps(target.dataset) == before


def test_a_dataset_that_is_complete_may_be_read_only(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.convert(*ONE)
    for path in target.data_dir.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("it was to be changed")  # root may write to what is read-only

    for door in ("WholeFile", "locked", "make_folder", "remove", "flush_folder"):
        monkeypatch.setattr(storage, door, refuse)
    assert "nothing to do" in target.convert(*ONE)
    for path in target.data_dir.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_part_of_a_dataset_that_is_complete_is_complete(target: Target) -> None:
    target.convert()
    before = commands.stamps(target.dataset)
    assert "nothing to do" in target.convert("--splits=test")
    assert commands.stamps(target.dataset) == before


def test_what_writes_the_same_is_complete_too(target: Target) -> None:
    target.convert(*ONE, "--check_images=decode")
    before = commands.stamps(target.dataset)
    for option in ("--check_images=header", "--on_bad_image=quarantine", "--overwrite"):
        assert "nothing to do" in target.convert(*ONE, option)
    assert commands.stamps(target.dataset) == before


def test_a_split_that_is_missing_is_added_and_the_others_stay(target: Target) -> None:
    target.convert(*ONE)
    before, entry = commands.stamps(target.dataset), target.info()["validation"]
    output = target.convert("--num_shards=validation:5,test:2")
    assert "validation  is there already, and stays as it is" in output.splitlines()
    after = commands.stamps(target.dataset)
    assert commands.written_since(before, target.dataset) == {
        f"imagenet2012-test.tfrecord-0000{index}-of-00002" for index in range(2)
    }
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {INFO, "result.json", ".beam_imagenet/lock"}
    assert target.info()["validation"] == entry
    assert set(target.info()) == set(commands.results(target.dataset)) == {"validation", "test"}


def test_splits_may_be_added_in_any_order(target: Target, tmp_path: Path) -> None:
    whole = Target(target.manual_dir, tmp_path / "whole")
    whole.convert()
    target.convert("--splits=test")
    target.convert("--splits=validation")
    assert commands.dataset_files(target.dataset) == commands.dataset_files(whole.dataset)


def grow(path: Path) -> None:
    """Makes an archive longer that keeps its time."""
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + bytes(10240))
    os.utime(path, ns=(time, time))


def other_codec(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PIL, "__version__", "0.0.1")


DIFFERENT: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], tuple[str, ...]]] = {
    "another time": (lambda path, patch: touch(path), ONE),
    "another size": (lambda path, patch: grow(path), ONE),
    "another codec": (lambda path, patch: other_codec(patch), ONE),
    "more shards": (lambda path, patch: None, (ONE[0], "--num_shards=validation:6")),
    "the usual shards": (lambda path, patch: None, ONE[:1]),
    "other names": (lambda path, patch: None, (*ONE, "--file_name=member")),
    "no checks": (lambda path, patch: None, (*ONE, "--check_images=none")),
    "bad ones kept": (lambda path, patch: None, (*ONE, "--on_bad_image=keep")),
    "strictly": (lambda path, patch: None, (*ONE, "--strict")),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_split_that_differs_is_refused_and_overwrite_replaces_it_by_the_pointer(
    target: Target, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    change, options = DIFFERENT[case]
    target.convert(*ONE)
    before = commands.stamps(target.dataset)
    change(archive(target), monkeypatch)
    for more in ((), ("--fresh",)):
        assert "Add --overwrite to replace it" in target.refused(*options, *more)
    assert commands.stamps(target.dataset) == before
    old = target.shards()
    target.convert(*options, "--overwrite")
    assert commands.written_since(before, target.dataset) == target.shards() - old
    folder = target.info()["validation"]["filepathTemplate"].partition("/")[0]
    assert target.shards() - old == {
        f"{folder}/{path.name}" for path in (target.dataset / folder).iterdir()
    }
    assert "nothing to do" in target.convert(*options)


def test_the_way_back_writes_no_shard(target: Target) -> None:
    target.convert(*ONE)
    old = (target.dataset / INFO).read_bytes()
    for variant in (("--file_name=member",), ("--strict",)):
        target.convert(*ONE, *variant, "--overwrite")
    before = commands.stamps(target.dataset)
    assert "5 of 5 shards kept" in target.convert(*ONE, "--overwrite")
    assert commands.written_since(before, target.dataset) == set()
    assert (target.dataset / INFO).read_bytes() == old
    assert "5 of 5 shards kept" in target.convert(*ONE, "--strict", "--overwrite")
    assert commands.written_since(before, target.dataset) == set()


def reverse_photographs(target: Target, photographs: dict[str, bytes]) -> None:
    """Gives each photograph another one's name; the archive keeps its size."""
    size = archive(target).stat().st_size
    names = list(photographs)
    members = list(zip(names, reversed(photographs.values()), strict=True))
    archive(target).write_bytes(tars.tar_of(members))
    assert archive(target).stat().st_size == size


def test_shards_of_an_archive_that_changed_are_never_reused(
    target: Target, photographs: dict[str, bytes], tmp_path: Path
) -> None:
    begin(target, *ONE)
    (target.dataset / SHARD).unlink()
    reverse_photographs(target, photographs)
    anew = Target(target.manual_dir, tmp_path / "anew")
    anew.convert(*ONE)
    assert "of another run, from another archive" in target.refused(*ONE)
    assert "kept" not in target.convert(*ONE, "--fresh")
    assert commands.dataset_files(target.dataset) == commands.dataset_files(anew.dataset)


def test_shards_of_other_options_are_never_reused(target: Target) -> None:
    target.convert(*ONE, "--check_images=none")
    before = commands.stamps(target.dataset)
    assert "kept" not in target.convert(*ONE, "--overwrite")
    assert len(commands.written_since(before, target.dataset)) == 5


def test_a_run_goes_on_with_what_another_has_written(target: Target) -> None:
    begin(target, *ONE)
    before = commands.stamps(target.dataset)
    (target.dataset / SHARD).unlink()
    output = target.convert(*ONE)
    assert output.count("validation  4 of 5 shards kept") == 1
    assert output.count("validation: 4 of 5 shards kept") == 1
    assert commands.written_since(before, target.dataset) == {SHARD}


@pytest.mark.parametrize("damage", ["removed", "truncated", "longer"])
def test_a_shard_that_is_not_as_it_was_is_written_again_and_no_other(
    target: Target, damage: str
) -> None:
    target.convert(*ONE)
    before = commands.stamps(target.dataset)
    files = commands.dataset_files(target.dataset)
    shard = target.dataset / SHARD
    if damage == "removed":
        shard.unlink()
    else:
        os.truncate(shard, shard.stat().st_size + (7 if damage == "longer" else -7))
    assert "4 of 5 shards kept" in target.convert(*ONE)
    assert commands.written_since(before, target.dataset) == {SHARD}
    assert commands.stamps(target.dataset)[INFO] == before[INFO]
    assert commands.dataset_files(target.dataset) == files


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"\0" * 300, b"\xff"])
def test_a_shard_whose_record_is_damaged_is_written_again(
    target: Target, content: bytes | None
) -> None:
    begin(target, *ONE)
    before = commands.stamps(target.dataset)
    record = state(target, f"{SHARD}.record.json")
    if content is None:
        record.unlink()
    else:
        record.write_bytes(content)
    assert "4 of 5 shards kept" in target.convert(*ONE)
    assert commands.written_since(before, target.dataset) == {SHARD}


def test_a_dataset_whose_own_record_is_lost_is_described_again(target: Target) -> None:
    target.convert(*ONE)
    before = commands.stamps(target.dataset)
    [summary] = (target.dataset / commands.STATE_FOLDER).glob("validation-*/result.json")
    summary.write_bytes(b"")
    assert "5 of 5 shards kept" in target.convert(*ONE)
    assert commands.written_since(before, target.dataset) == set()
    assert "nothing to do" in target.convert(*ONE)


def test_fresh_writes_every_shard_anew_and_the_same_bytes(target: Target) -> None:
    target.convert(*ONE)
    before, files = commands.stamps(target.dataset), commands.dataset_files(target.dataset)
    assert "kept" not in target.convert(*ONE, "--fresh")
    assert commands.written_since(before, target.dataset) == target.shards()
    assert len(target.shards()) == 5
    assert commands.dataset_files(target.dataset) == files


def test_fresh_discards_what_another_run_has_begun(target: Target, tmp_path: Path) -> None:
    begin(target, ONE[0], "--num_shards=validation:7")
    anew = Target(target.manual_dir, tmp_path / "anew")
    anew.convert(*ONE)
    target.convert(*ONE, "--fresh")
    assert set(commands.stamps(target.dataset)) == set(commands.stamps(anew.dataset))
    assert commands.dataset_files(target.dataset) == commands.dataset_files(anew.dataset)


def test_fresh_discards_nothing_that_is_published(target: Target) -> None:
    target.convert()
    published = commands.stamps(target.dataset)
    target.convert("--splits=test", "--file_name=member", "--overwrite", "--fresh")
    target.convert("--splits=test", "--strict", "--overwrite", "--fresh")
    after = commands.stamps(target.dataset)
    changed = {name for name in published if after.get(name) != published[name]}
    assert changed <= {INFO, "result.json", ".beam_imagenet/lock"}


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_what_another_run_has_begun_is_refused(target: Target, more: tuple[str, ...]) -> None:
    begin(target, ONE[0])
    before = commands.stamps(target.dataset)
    message = target.refused(*ONE, *more)
    assert "holds the begun validation split of another run" in message
    assert "--fresh" in message
    assert commands.stamps(target.dataset) == before
    target.convert(ONE[0])


def test_shards_that_are_nobodys_are_refused(target: Target, tmp_path: Path) -> None:
    begin(target, ONE[0], "--num_shards=validation:7")
    shutil.rmtree(target.dataset / commands.STATE_FOLDER)
    before = commands.stamps(target.dataset)
    message = target.refused(*ONE)
    assert "holds 7 files of a validation split that belong to no dataset" in message
    assert commands.stamps(target.dataset) == before
    target.convert("--splits=test")  # another split's are in nobody's way
    target.convert(*ONE, "--fresh")
    anew = Target(target.manual_dir, tmp_path / "anew")
    anew.convert("--num_shards=validation:5")
    assert commands.dataset_files(target.dataset) == commands.dataset_files(anew.dataset)


def test_of_two_runs_that_begin_at_once_one_is_told(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner_from_options = local_runner.runner_from_options

    def begin_another(*arguments: object) -> object:
        """Runs after a run has looked at its target, before it takes it."""
        monkeypatch.setattr(local_runner, "runner_from_options", runner_from_options)
        target.convert(*ONE)
        (target.dataset / INFO).unlink()
        return runner_from_options(*arguments)

    monkeypatch.setattr(local_runner, "runner_from_options", begin_another)
    assert "Another run has just begun" in target.refused(ONE[0])
    assert "5 of 5 shards kept" in target.convert(*ONE)


def test_a_description_that_cannot_be_understood_is_left_alone(target: Target) -> None:
    target.dataset.mkdir(parents=True)
    (target.dataset / INFO).write_text("{")
    assert "Move it away" in target.refused(*ONE, "--overwrite", "--fresh", status=1)
    assert set(commands.stamps(target.dataset)) == {INFO}


def test_of_many_who_take_the_same_place_at_once_one_gets_it(target: Target) -> None:
    asked = [
        options.job_from_options(
            options.parse(target.arguments(ONE[0], f"--num_shards=validation:{n}"))
        )
        for n in range(1, 9)
    ]
    found = [target_module.examine(job, overwrite=False, fresh=False) for job in asked]
    barrier = threading.Barrier(len(found))

    def occupy(place: target_module.Target) -> bool:
        barrier.wait()
        try:
            with target_module.occupied(place, fresh=False):
                barrier.wait()
        except UsageError:
            barrier.wait()
            return False
        return True

    with ThreadPoolExecutor(len(found)) as pool:
        taken = list(pool.map(occupy, found))
    assert taken.count(True) == 1
    [winner] = asked[taken.index(True)].sources
    assert state(target, "validation.claim").read_text() == f"{winner.fingerprint}\n"


def test_a_place_that_was_taken_and_never_used_is_free(target: Target) -> None:
    """The archive may have been damaged, so that nothing was written, and been fetched again."""
    path = archive(target)
    content = path.read_bytes()
    path.write_bytes(content[:512] + bytes(len(content) - 512))
    target.refused(ONE[0], status=1)
    assert state(target, "validation.claim").exists()
    path.write_bytes(content)
    target.convert(*ONE)


def test_a_dataset_of_another_version_in_the_folder_is_refused(target: Target) -> None:
    target.convert(*ONE)
    info = target.dataset / INFO
    info.write_text(info.read_text().replace('"version": "5.1.0"', '"version": "3.0.0"'))
    before = commands.stamps(target.dataset)
    assert "says version 3.0.0, not 5.1.0" in target.refused(*ONE, "--overwrite", "--fresh")
    assert commands.stamps(target.dataset) == before
