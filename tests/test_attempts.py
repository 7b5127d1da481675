"""Attempts at the same shards or the same commit, at once or one after the other, without an engine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from beam_imagenet import commit, dataset_info, errors, layout, storage
from beam_imagenet.model import Job, ShardTask
from tests import by_hand, commands, disturbed

pytestmark = pytest.mark.slow

SHARDS = "--num_shards=train:4,validation:4,test:4"
TOTAL = 12

_FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def expected(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nothing happens to."""
    data_dir = tmp_path_factory.mktemp("expected")
    return commands.dataset_files(
        commands.convert(manual_dir=archives, data_dir=data_dir, options=(SHARDS,))
    )


@pytest.fixture
def job(archives: Path, tmp_path: Path) -> Job:
    return by_hand.occupied(archives, tmp_path, SHARDS)


def require_right(job: Job, expected: dict[str, bytes]) -> None:
    found = commands.dataset_files(Path(job.dataset_dir))
    assert disturbed.different(found, expected) == []


def test_a_bundle_that_runs_again_rewrites_no_finished_shard(job: Job) -> None:
    _, tasks = by_hand.planned(job)
    first = by_hand.write(job, tasks)
    shards = disturbed.recorded_shards(Path(job.dataset_dir))
    second = by_hand.write(job, tasks)
    assert disturbed.recorded_shards(Path(job.dataset_dir)) == shards
    assert len(shards) == TOTAL
    assert [result.kept for result in first] == [False] * TOTAL
    assert [result.kept for result in second] == [True] * TOTAL


def test_an_attempt_that_ends_late_replaces_no_finished_shard(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow one has written all of the shard, and then finds it finished by the other."""
    dataset = Path(job.dataset_dir)
    _, (task, *_) = by_hand.planned(job)
    finished: dict[Path, tuple[int, int]] = {}
    write = storage.WholeFile.write

    def write_and_be_overtaken(self: storage.WholeFile, data: memoryview | bytes) -> None:
        write(self, data)
        monkeypatch.setattr(storage.WholeFile, "write", write)
        by_hand.write(job, [task])
        finished.update(disturbed.recorded_shards(dataset))

    monkeypatch.setattr(storage.WholeFile, "write", write_and_be_overtaken)
    by_hand.write(job, [task])
    assert len(finished) == 1
    assert disturbed.recorded_shards(dataset) == finished
    assert disturbed.unfinished(dataset) == []


def write_and_send(
    job: Job,
    tasks: list[ShardTask],
    together: Any,
    sender: multiprocessing.connection.Connection,
) -> None:
    together.wait()
    sender.send(by_hand.write(job, tasks))


@pytest.mark.parametrize("same_order", [True, False])
def test_two_processes_that_write_the_same_shards_at_once_give_the_same_dataset(
    job: Job, expected: dict[str, bytes], same_order: bool
) -> None:
    plans, tasks = by_hand.planned(job)
    together = _FORK.Barrier(2)
    results = []
    running = []
    for order in (tasks, tasks if same_order else tasks[::-1]):
        receiver, sender = _FORK.Pipe(duplex=False)
        process = _FORK.Process(target=write_and_send, args=(job, order, together, sender))
        process.start()
        running.append((process, receiver))
    for process, receiver in running:
        results.append(receiver.recv())
        process.join()
    assert disturbed.unfinished(Path(job.dataset_dir)) == []
    with pytest.raises(errors.ReconcileError):
        commit.commit(job, plans, results[0] + results[1])
    commit.commit(job, plans, results[1])
    require_right(job, expected)


def meet_under_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits wait for each other where only one may be: they meet if two are there, or give up."""
    together = threading.Barrier(2)
    render = dataset_info.dataset_info_json

    def wait_and_render(*arguments: Any, **named: Any) -> bytes:
        try:
            together.wait(timeout=1)
        except threading.BrokenBarrierError:
            together.reset()
        return render(*arguments, **named)

    monkeypatch.setattr(dataset_info, "dataset_info_json", wait_and_render)


def test_the_same_commit_at_once_and_again_gives_the_same_dataset(
    job: Job, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, tasks = by_hand.planned(job)
    results = by_hand.write(job, tasks)
    meet_under_the_lock(monkeypatch)
    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(commit.commit, job, plans, results) for _ in range(2)]:
            future.result()
    require_right(job, expected)
    before = (Path(job.dataset_dir) / layout.DATASET_INFO).stat()
    commit.commit(job, plans, results)
    after = (Path(job.dataset_dir) / layout.DATASET_INFO).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    require_right(job, expected)


def test_of_two_different_commits_at_once_the_later_is_told_and_none_is_lost(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [
        by_hand.occupied(archives, tmp_path, f"--splits={split}")
        for split in ("validation", "test")
    ]
    ready = []
    for job in jobs:
        plans, tasks = by_hand.planned(job)
        ready.append((job, plans, by_hand.write(job, tasks)))
    meet_under_the_lock(monkeypatch)
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(commit.commit, *arguments) for arguments in ready]
    told = [future.exception() for future in futures]
    assert sorted(type(error).__name__ for error in told) == ["ConflictError", "NoneType"]
    published = layout.read_published(Path(jobs[0].dataset_dir)).splits
    assert list(published) == ["test" if told[0] else "validation"]
