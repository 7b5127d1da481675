"""The one write that publishes: once, whole, on the disk, and only onto what the run has seen."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from beam_imagenet import commit, inventory, layout, options, plan, storage
from beam_imagenet import target as target_module
from beam_imagenet.errors import ConflictError, ImageError, ImageNetError, ReconcileError
from beam_imagenet.model import Finding, Job, ShardResult, SplitPlan
from beam_imagenet.shard import ShardWriter
from tests import commands
from tests.commands import Target

ONE = ("--splits=validation", "--num_shards=validation:5")
INFO = "dataset_info.json"


class Work(NamedTuple):
    """All that a run does before its last step."""

    job: Job
    plans: list[SplitPlan]
    results: list[ShardResult]


def work(target: Target, *arguments: str) -> Work:
    """Writes all shards, as a run does, and publishes nothing."""
    asked = options.job_from_options(options.parse(target.arguments(*arguments)))
    fresh = "--fresh" in arguments
    found = target_module.examine(asked, overwrite="--overwrite" in arguments, fresh=fresh)
    with target_module.occupied(found, fresh=fresh):
        return write_shards(found.job)


def write_shards(job: Job) -> Work:
    plans, results = [], []
    writer = ShardWriter(job)
    for source in job.sources:
        with storage.ArchiveFile(source.archive) as archive:
            batches = [
                inventory.read_segment(segment, archive, keep_member_path=job.keep_member_path)
                for segment in inventory.list_segments(source, archive)
            ]
            split_plan, tasks = plan.plan_split(source, batches)
            plans.append(split_plan)
            results += [writer.write(task, archive) for task in tasks]
    writer.finish()
    return Work(job, plans, results)


def outcomes(works: Sequence[Work]) -> list[type[ImageNetError] | None]:
    """What each of several commits at once raised."""
    barrier = threading.Barrier(len(works))

    def attempt(done: Work) -> type[ImageNetError] | None:
        barrier.wait()
        try:
            commit.commit(*done)
        except ImageNetError as error:
            return type(error)
        return None

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(attempt, works))


@pytest.fixture
def expected(target: Target, tmp_path: Path) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    undisturbed = Target(target.manual_dir, tmp_path / "undisturbed")
    undisturbed.convert(*ONE)
    return commands.dataset_files(undisturbed.dataset)


def test_a_commit_makes_the_dataset(target: Target, expected: dict[str, bytes]) -> None:
    done = work(target, *ONE)
    assert INFO not in commands.stamps(target.dataset)
    commit.commit(*done)
    assert commands.dataset_files(target.dataset) == expected


def test_a_commit_that_runs_again_changes_nothing(
    target: Target, expected: dict[str, bytes]
) -> None:
    done = work(target, *ONE)
    commit.commit(*done)
    before = commands.stamps(target.dataset)[INFO]
    commit.commit(*done)
    assert commands.stamps(target.dataset)[INFO] == before
    assert commands.dataset_files(target.dataset) == expected


def test_commits_of_the_same_at_once_all_succeed(
    target: Target, expected: dict[str, bytes]
) -> None:
    done = work(target, *ONE)
    assert outcomes([done] * 8) == [None] * 8
    assert commands.dataset_files(target.dataset) == expected


def test_commits_of_the_same_in_processes_at_once_all_succeed(
    target: Target, expected: dict[str, bytes]
) -> None:
    done = work(target, *ONE)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for attempt in [pool.submit(commit.commit, *done) for _ in range(20)]:
            attempt.result()
    assert commands.dataset_files(target.dataset) == expected


def test_of_different_commits_at_once_one_succeeds_and_the_dataset_is_its_own(
    target: Target,
) -> None:
    target.convert(*ONE)
    variants = ("--file_name=member", "--strict", "--check_images=none", "--on_bad_image=keep")
    works = [work(target, *ONE, "--overwrite", variant) for variant in variants]
    found = outcomes(works)
    assert found.count(None) == 1
    assert found.count(ConflictError) == 3
    [winner] = works[found.index(None)].job.sources
    assert target.info()["validation"]["filepathTemplate"].startswith(f"{winner.folder}/")
    assert "nothing to do" in target.convert(*ONE, variants[found.index(None)])


@pytest.mark.parametrize("change", ["edited", "removed", "another split"])
def test_a_dataset_that_changed_since_the_run_began_is_left_as_it_is(
    target: Target, change: str
) -> None:
    target.convert("--splits=test")
    done = work(target, *ONE)
    info = target.dataset / INFO
    if change == "edited":
        info.write_bytes(info.read_bytes() + b"\n")
    elif change == "removed":
        info.unlink()
    else:
        target.convert("--splits=test", "--strict", "--overwrite")
    before = info.read_bytes() if info.exists() else None
    with pytest.raises(ConflictError, match="changed under this run"):
        commit.commit(*done)
    assert storage.read_file(info) == before


def test_a_dataset_that_came_since_the_run_began_is_left_as_it_is(target: Target) -> None:
    done = work(target, *ONE)
    target.convert("--splits=test")
    before = (target.dataset / INFO).read_bytes()
    with pytest.raises(ConflictError, match="changed under this run"):
        commit.commit(*done)
    assert (target.dataset / INFO).read_bytes() == before


@pytest.mark.parametrize("content", [None, b"0123456789abcdef\n", b""])
def test_a_place_that_another_run_has_taken_over_is_not_published(
    target: Target, content: bytes | None
) -> None:
    done = work(target, *ONE)
    claim = layout.claim_path(target.dataset, "validation")
    if content is None:
        claim.unlink()
    else:
        claim.write_bytes(content)
    with pytest.raises(ConflictError, match="taken over the validation split"):
        commit.commit(*done)
    assert not (target.dataset / INFO).exists()


@pytest.mark.parametrize("size", [None, 0, 7])
def test_a_shard_that_is_not_as_it_was_written_stops_the_commit(
    target: Target, size: int | None
) -> None:
    done = work(target, *ONE)
    shard = target.dataset / done.results[3].shard
    if size is None:
        shard.unlink()
    else:
        os.truncate(shard, size)
    with pytest.raises(ReconcileError, match=rf"{done.results[3].shard} was written with") as found:
        commit.commit(*done)
    assert ("not there any more" if size is None else f"but has {size}") in str(found.value)
    assert not (target.dataset / INFO).exists()


def test_what_was_not_written_as_planned_is_not_published(target: Target) -> None:
    job, plans, results = work(target, *ONE)
    for wrong in (results[1:], [*results, results[0]]):
        with pytest.raises(ReconcileError):
            commit.commit(job, plans, wrong)
    with pytest.raises(ReconcileError):
        commit.commit(job, [], [])
    assert not (target.dataset / INFO).exists()


def test_bad_images_of_all_shards_count_against_the_limit(target: Target) -> None:
    done = work(target, *ONE, "--on_bad_image=quarantine", "--max_bad_images=2")
    bad = tuple(Finding(file_name=f"{number}", reason="empty") for number in range(3))
    results = [
        dataclasses.replace(result, bad=bad[index : index + 1], num_examples=9)
        for index, result in enumerate(done.results)
    ]
    results[3:] = done.results[3:]
    with pytest.raises(
        ImageError, match="3 bad images were left out, more than --max_bad_images=2"
    ):
        commit.commit(done.job, done.plans, results)
    assert not (target.dataset / INFO).exists()


def test_the_result_tells_of_all_splits_that_are_published(target: Target) -> None:
    target.convert("--splits=test")
    done = work(target, *ONE)
    assert set(commands.results(target.dataset)) == {"test"}
    commit.commit(*done)
    found = commands.results(target.dataset)
    assert {split: row["images"] for split, row in found.items()} == {"validation": 50, "test": 50}
    content = json.loads((target.dataset / "result.json").read_text())
    assert content["version"] == "5.1.0"
    assert found["validation"]["fingerprint"] == done.job.sources[0].fingerprint


class Events:
    """What reaches the disk, in order: files and folders that are flushed, and names that are given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.all: list[tuple[str, int]] = []
        self._fsync, self._replace = os.fsync, os.replace
        patch.setattr(os, "fsync", self._flush)
        patch.setattr(os, "replace", self._name)

    def _flush(self, file: int) -> None:
        self.all.append(("flushed", os.fstat(file).st_ino))
        self._fsync(file)

    def _name(self, source: Path, destination: Path) -> None:
        self.all.append(("named", os.stat(source).st_ino))
        self._replace(source, destination)

    def at(self, what: str, path: Path) -> list[int]:
        """When it happened to a file or folder."""
        inode = path.stat().st_ino
        return [when for when, event in enumerate(self.all) if event == (what, inode)]


@pytest.mark.parametrize("replaces", [False, True])
def test_all_is_on_the_disk_before_the_dataset_is_published(
    target: Target, monkeypatch: pytest.MonkeyPatch, replaces: bool
) -> None:
    if replaces:
        target.convert(*ONE, "--strict")
    events = Events(monkeypatch)
    commit.commit(*work(target, *ONE, "--overwrite"))
    info = target.dataset / INFO
    folder = target.dataset / target.info()["validation"]["filepathTemplate"].rpartition("/")[0]
    shards = sorted(folder.glob("*.tfrecord-*"))
    assert len(shards) == 5
    [published] = events.at("named", info)
    assert min(events.at("flushed", info)) < published
    if not replaces:
        [claimed] = events.at("named", layout.claim_path(target.dataset, "validation"))
        [flushed] = events.at("flushed", layout.claim_path(target.dataset, "validation"))
        assert flushed < claimed < min(events.at("named", shards[0]))
    for shard in shards:
        [named] = events.at("named", shard)
        assert min(events.at("flushed", shard)) < named
        assert any(named < when < published for when in events.at("flushed", folder))
    assert max(events.at("flushed", target.dataset)) > published


def test_nothing_but_the_description_and_what_tells_of_runs_changes_with_a_commit(
    target: Target,
) -> None:
    target.convert("--splits=test")
    done = work(target, *ONE)
    before = commands.stamps(target.dataset)
    commit.commit(*done)
    after: dict[str, Any] = commands.stamps(target.dataset)
    changed = {name for name in after if after[name] != before.get(name)}
    fingerprint = done.job.sources[0].fingerprint
    summary = f".beam_imagenet/validation-{fingerprint}/result.json"
    assert changed - {".beam_imagenet/lock"} == {INFO, "result.json", summary}
