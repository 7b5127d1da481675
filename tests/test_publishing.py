"""Readers and other runs at the same time: they see the old dataset or the new one, and are told."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from beam_imagenet import pipeline, storage
from tests import commands, tars
from tests.commands import Target

ONE = ("--splits=validation", "--num_shards=validation:5")
INFO = "dataset_info.json"


def read(dataset: Path) -> str:
    """Reads a dataset as a reader does who knows nothing of how it came about; a digest of it all.

    Raises:
        OSError: A file that the description names is missing.
        AssertionError: Files and description do not agree.
    """
    digest = hashlib.sha256()
    for split in json.loads((dataset / INFO).read_bytes())["splits"]:
        count = len(split["shardLengths"])
        shards = [
            (
                dataset
                / split["filepathTemplate"]
                .replace("{DATASET}", "imagenet2012")
                .replace("{SPLIT}", split["name"])
                .replace("{FILEFORMAT}", "tfrecord")
                .replace("{SHARD_X_OF_Y}", f"{index:05}-of-{count:05}")
            ).read_bytes()
            for index in range(count)
        ]
        records = sum(map(int, split["shardLengths"]))
        assert sum(map(len, shards)) == int(split["numBytes"]) + 16 * records
        for shard in shards:
            digest.update(shard)
    return digest.hexdigest()


def before_work(patch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Does something in the middle of the next run: when it has taken its place, before it writes."""
    build = pipeline.build

    def do_and_build(*arguments: Any) -> None:
        patch.setattr(pipeline, "build", build)
        do()
        build(*arguments)

    patch.setattr(pipeline, "build", do_and_build)


def other_photographs(target: Target, photographs: dict[str, bytes]) -> Target:
    """The same place, and an archive in which each photograph has another one's name."""
    folder = target.manual_dir.with_name("other")
    folder.mkdir()
    members = zip(photographs, reversed(photographs.values()), strict=True)
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tars.tar_of(members))
    return Target(folder, target.data_dir)


@contextmanager
def readers(dataset: Path) -> Iterator[list[str]]:
    """Reads a dataset all the time; what was read, or an error when it ends."""
    seen: list[str] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def read_on() -> None:
        while not ended.is_set():
            try:
                seen.append(read(dataset))
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=read_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_readers_see_the_old_dataset_or_the_new_one(
    target: Target, photographs: dict[str, bytes]
) -> None:
    other = other_photographs(target, photographs)
    target.convert(*ONE)
    digests = [read(target.dataset)]
    with readers(target.dataset) as seen:
        for now, options in (
            (other, ()),  # beside it
            (target, ()),  # back
            (target, ("--fresh",)),  # in its place
            (other, ("--fresh",)),
            (target, ("--check_images=decode",)),
        ):
            now.convert(*ONE, "--overwrite", *options)
            digests.append(read(target.dataset))
    assert digests == [digests[0], digests[1], digests[0], digests[0], digests[1], digests[0]]
    assert set(seen) == set(digests)
    assert len(set(digests)) == 2


def test_of_two_different_runs_at_once_the_later_is_told(
    target: Target, photographs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    target.convert(*ONE)
    other = other_photographs(target, photographs)
    before_work(monkeypatch, lambda: other.convert(*ONE, "--overwrite"))
    message = target.refused(*ONE, "--strict", "--overwrite", status=1)
    assert "changed under this run" in message
    assert "nothing to do" in other.convert(*ONE)
    assert "5 of 5 shards kept" in target.convert(*ONE, "--strict", "--overwrite")


def test_of_two_processes_with_different_options_at_once_none_spoils_the_others_work(
    target: Target,
) -> None:
    target.convert(*ONE)
    variants = ("--strict", "--file_name=member")
    runs = [commands.start(*target.arguments(*ONE, "--overwrite", variant)) for variant in variants]
    ended = [run.communicate(timeout=120)[1] for run in runs]
    statuses = [run.returncode for run in runs]
    assert set(statuses) <= {0, 1}
    assert 0 in statuses
    for status, error in zip(statuses, ended, strict=True):
        assert ("changed under this run" in error) is (status == 1)
    read(target.dataset)
    done = [target.run(*ONE, variant).status for variant in variants]
    assert sorted(done) == [0, 2]
    assert statuses[done.index(0)] == 0


def test_two_identical_runs_at_once_both_succeed(target: Target, tmp_path: Path) -> None:
    undisturbed = Target(target.manual_dir, tmp_path / "undisturbed")
    undisturbed.convert(*ONE)
    expected = commands.dataset_files(undisturbed.dataset)
    runs = [commands.start(*target.arguments(*ONE)) for _ in range(2)]
    for run in runs:
        _, error = run.communicate(timeout=120)
        assert (run.returncode, error) == (0, "")
    assert commands.dataset_files(target.dataset) == expected


def test_an_identical_run_in_the_middle_of_another_is_shared(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps: list[dict[str, tuple[int, int]]] = []

    def convert() -> None:
        target.convert(*ONE)
        stamps.append(commands.stamps(target.dataset))

    before_work(monkeypatch, convert)
    target.convert(*ONE)
    assert commands.written_since(stamps[0], target.dataset) == set()
    assert commands.stamps(target.dataset)[INFO] == stamps[0][INFO]


@pytest.mark.parametrize("published", [False, True])
def test_fresh_is_refused_while_another_run_is_at_work(
    target: Target,
    photographs: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    published: bool,
) -> None:
    other = other_photographs(target, photographs)
    options = (*ONE, "--overwrite") if published else ONE
    if published:
        target.convert(*ONE, "--strict")

    def try_to_discard() -> None:
        assert "Another run is writing" in other.refused(*options, "--fresh")
        assert "Another run is writing" in target.refused(*options, "--fresh")
        assert target.clean().status == 2

    before_work(monkeypatch, try_to_discard)
    target.convert(*options)
    read(target.dataset)
    assert "nothing to do" in target.convert(*options)
    other.convert(*options, "--overwrite", "--fresh")


def test_a_run_that_was_discarded_is_told_and_touches_nothing_that_came_after_it(
    target: Target, photographs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is at work should have been seen, but locks may not reach from machine to machine."""
    other = other_photographs(target, photographs)
    files: list[dict[str, bytes]] = []

    def discard() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "is_in_use", lambda scratch: False)
            other.convert(*ONE, "--fresh")
        files.append(commands.dataset_files(target.dataset))

    before_work(monkeypatch, discard)
    message = target.refused(*ONE, status=1)
    assert "Another run has taken over the validation split" in message
    assert commands.dataset_files(target.dataset) == files[0]
    assert "nothing to do" in other.convert(*ONE)


def test_a_run_that_begins_while_another_is_at_work_is_refused(
    target: Target, photographs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even before the other one's first shard is there."""
    other = other_photographs(target, photographs)

    def begin() -> None:
        assert not target.shards()
        assert "holds the begun validation split of another run" in other.refused(*ONE)

    before_work(monkeypatch, begin)
    target.convert(*ONE)
    assert "nothing to do" in target.convert(*ONE)


def test_a_split_that_another_run_adds_meanwhile_is_told(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_work(monkeypatch, lambda: target.convert("--splits=test"))
    assert "changed under this run" in target.refused(*ONE, status=1)
    assert set(target.info()) == {"test"}
    assert "5 of 5 shards kept" in target.convert(*ONE)
    assert set(target.info()) == {"validation", "test"}


def test_a_file_system_without_locks_is_told_before_any_work(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert "needs a file system with locks" in target.refused(*ONE, status=1)
    assert not target.shards()


def test_a_place_that_cannot_be_written_to_is_told(target: Target) -> None:
    target.data_dir.mkdir()
    (target.data_dir / "imagenet2012").write_text("in the way")
    message = target.refused(*ONE, status=1)
    assert f"{target.data_dir}/imagenet2012" in message
    assert "Not a directory" in message
