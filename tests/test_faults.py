"""An engine that loses or repeats work of any stage: it is noticed, or the dataset is right."""

from __future__ import annotations

import copy
import errno
import functools
import itertools
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import apache_beam as beam
import pytest
from apache_beam import pvalue
from apache_beam.pipeline import PipelineVisitor
from apache_beam.transforms.window import GlobalWindows

from beam_imagenet import __main__, errors, layout, model, pipeline
from beam_imagenet.model import Job
from tests import by_hand, commands, disturbed

pytestmark = pytest.mark.slow

SHARDS = "--num_shards=train:4,validation:4,test:4"
TOTAL = 12

STAGES = [
    # step, and which of the elements that it puts out is dropped or doubled
    ("Archives/Map(decode)", 2),
    ("ReadHeaders/ListSegments", 500),
    ("ReadHeaders/SpreadSegments/AddRandomKeys", 1002),
    ("ReadHeaders/SpreadSegments/RemoveRandomKeys", 3),
    ("ReadHeaders/WalkHeaders", 1),
    ("PlanShards/PlanSplit/FlatMap(_plan_split)", 1),  # a plan
    ("PlanShards/PlanSplit/FlatMap(_plan_split)", 2),  # a task
    ("WriteShards/SpreadShards/AddRandomKeys", 12),
    ("WriteShards/SpreadShards/RemoveRandomKeys", 5),
    ("WriteShards/WriteShard", 7),
]
LABELS = sorted({label for label, _ in STAGES})
COMMIT = ["Job/Map(decode)", "Commit/WriteDatasetInfo"]
CHANGES = ["WriteShards/WriteShard", *COMMIT]
"""The steps that change something outside the engine."""

Call: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""An element, and what a step gets besides."""

Scheme: TypeAlias = Callable[[beam.DoFn, Sequence[Call]], Iterable[Any]]
"""How an engine has a step do a bundle; gives what it goes on with."""


class Wrapper(beam.DoFn):
    """Does what the step that it wraps does."""

    def __init__(self, step: beam.DoFn) -> None:
        self._step = step

    def setup(self) -> None:
        self._step.setup()

    def start_bundle(self) -> None:
        self._step.start_bundle()

    def finish_bundle(self) -> Any:
        return self._step.finish_bundle()

    def teardown(self) -> None:
        self._step.teardown()


class Faulty(Wrapper):
    """A step that puts out its n-th element `copies` times: dropped with 0, doubled with 2."""

    def __init__(self, step: beam.DoFn, *, copies: int, nth: int) -> None:
        super().__init__(step)
        self._copies = copies
        self._left = nth

    def process(self, element: Any, *arguments: Any, **named: Any) -> Iterator[Any]:
        for output in self._step.process(element, *arguments, **named):
            self._left -= 1
            yield from [output] * (self._copies if self._left == 0 else 1)


class Bundled(Wrapper):
    """A step whose bundles are done in an engine's own way."""

    def __init__(self, step: beam.DoFn, *, scheme: Scheme) -> None:
        super().__init__(step)
        self._scheme = scheme

    def start_bundle(self) -> None:
        self._calls: list[Call] = []

    def process(self, element: Any, *arguments: Any, **named: Any) -> None:
        if isinstance(element, tuple) and not isinstance(element[1], str | model.MemberBatch):
            key, values = element
            element = key, list(values) if isinstance(values, Iterable) else values
        self._calls.append((element, arguments, named))

    def finish_bundle(self) -> Iterator[Any]:
        for output in self._scheme(self._step, self._calls):
            if isinstance(output, pvalue.TaggedOutput):
                value = GlobalWindows.windowed_value(output.value)
                yield pvalue.TaggedOutput(output.tag, value)
            else:
                yield GlobalWindows.windowed_value(output)


def attempt(step: beam.DoFn, calls: Sequence[Call], *, finish: bool = True) -> list[Any]:
    """One worker's attempt at a bundle."""
    step = copy.deepcopy(step)
    step.setup()
    step.start_bundle()
    outputs: list[Any] = []
    for element, arguments, named in calls:
        outputs += step.process(element, *arguments, **named) or ()
    if finish:
        step.finish_bundle()
        step.teardown()
    return outputs


def at_once(step: beam.DoFn, calls: Sequence[Call], *, used: Sequence[int]) -> Iterator[Any]:
    """Two attempts at the same time, as engines do when one seems slow; those `used` count."""
    together = threading.Barrier(2)

    def begin() -> list[Any]:
        together.wait()
        return attempt(step, calls)

    with ThreadPoolExecutor(2) as threads:
        outputs = [future.result() for future in [threads.submit(begin) for _ in range(2)]]
    for number in used:
        yield from outputs[number]


def again(step: beam.DoFn, calls: Sequence[Call]) -> list[Any]:
    """A bundle that ended well, and whose worker was lost before it could say so."""
    attempt(step, calls)
    return attempt(step, calls)


def after_failure(step: beam.DoFn, calls: Sequence[Call]) -> list[Any]:
    """A bundle that was broken off in its midst."""
    attempt(step, calls[: len(calls) // 2], finish=False)
    return attempt(step, calls)


class Wrap(PipelineVisitor):
    """Wraps the step of one stage."""

    def __init__(self, label: str, wrapper: Callable[[beam.DoFn], beam.DoFn]) -> None:
        self.wrapped = 0
        self._label = label
        self._wrapper = wrapper

    def visit_transform(self, applied: Any) -> None:
        if applied.full_label == self._label:
            applied.transform.fn = self._wrapper(applied.transform.fn)
            self.wrapped += 1


def run(job: Job, wrap: Wrap | None = None) -> Path:
    """Runs the graph, with one of its steps wrapped; returns the dataset's folder."""
    graph = beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner")
    pipeline.build(graph, job)
    if wrap is not None:
        graph.visit(wrap)
        assert wrap.wrapped == 1
    graph.run().wait_until_finish()
    return Path(job.dataset_dir)


@pytest.fixture(scope="module")
def expected(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nothing happens to."""
    return commands.dataset_files(
        run(by_hand.occupied(archives, tmp_path_factory.mktemp("expected"), SHARDS))
    )


@pytest.fixture
def job(archives: Path, tmp_path: Path) -> Job:
    return by_hand.occupied(archives, tmp_path, SHARDS)


def require_right(job: Job, expected: dict[str, bytes]) -> None:
    assert disturbed.different(commands.dataset_files(Path(job.dataset_dir)), expected) == []


@pytest.mark.parametrize(("label", "nth"), STAGES)
@pytest.mark.parametrize("copies", [0, 2], ids=["dropped", "doubled"])
def test_a_lost_or_repeated_element_is_noticed_and_the_next_run_is_right(
    job: Job, expected: dict[str, bytes], label: str, nth: int, copies: int
) -> None:
    with pytest.raises(errors.ReconcileError, match="No dataset"):
        run(job, Wrap(label, functools.partial(Faulty, copies=copies, nth=nth)))
    assert not disturbed.is_published(Path(job.dataset_dir))
    run(job)
    require_right(job, expected)


@pytest.mark.parametrize("label", LABELS)
def test_the_same_graph_without_a_fault_publishes(
    job: Job, expected: dict[str, bytes], label: str
) -> None:
    run(job, Wrap(label, functools.partial(Faulty, copies=1, nth=1)))
    require_right(job, expected)


@pytest.mark.parametrize(
    ("label", "used"),
    [*((label, 0) for label in [*LABELS, *COMMIT]), *((label, 1) for label in CHANGES)],
)
def test_a_bundle_that_is_done_twice_at_once_gives_the_same_dataset(
    job: Job, expected: dict[str, bytes], label: str, used: int
) -> None:
    scheme = functools.partial(at_once, used=(used,))
    run(job, Wrap(label, functools.partial(Bundled, scheme=scheme)))
    require_right(job, expected)


@pytest.mark.parametrize("label", LABELS)
def test_a_bundle_both_of_whose_attempts_count_is_noticed(job: Job, label: str) -> None:
    scheme = functools.partial(at_once, used=(0, 1))
    with pytest.raises(errors.ReconcileError, match="No dataset"):
        run(job, Wrap(label, functools.partial(Bundled, scheme=scheme)))
    assert not disturbed.is_published(Path(job.dataset_dir))


@pytest.mark.parametrize("scheme", [again, after_failure])
@pytest.mark.parametrize("label", CHANGES)
def test_a_bundle_that_is_done_again_gives_the_same_dataset(
    job: Job, expected: dict[str, bytes], label: str, scheme: Scheme
) -> None:
    run(job, Wrap(label, functools.partial(Bundled, scheme=scheme)))
    require_right(job, expected)


@pytest.mark.parametrize("label", COMMIT)
def test_a_commit_that_runs_twice_gives_the_same_dataset(
    job: Job, expected: dict[str, bytes], label: str
) -> None:
    run(job, Wrap(label, functools.partial(Faulty, copies=2, nth=1)))
    require_right(job, expected)


def test_a_group_that_arrives_in_two_parts_is_noticed(job: Job) -> None:
    def halved(step: beam.DoFn, calls: Sequence[Call]) -> list[Any]:
        halves: list[Call] = []
        for (split, batches), arguments, named in calls:
            middle = (len(batches) + 1) // 2
            halves += [((split, batches[:middle]), arguments, named)]
            halves += [((split, batches[middle:]), arguments, named)] if batches[middle:] else []
        return attempt(step, halves)

    label = "PlanShards/PlanSplit/FlatMap(_plan_split)"
    with pytest.raises(errors.ReconcileError, match="No dataset"):
        run(job, Wrap(label, functools.partial(Bundled, scheme=halved)))
    assert not disturbed.is_published(Path(job.dataset_dir))


@pytest.mark.parametrize("nth", [1, 6, TOTAL])
def test_a_shard_that_does_not_reach_the_disk_has_no_record_and_is_not_published(
    job: Job, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """The last one fails when its bundle ends."""
    dataset = Path(job.dataset_dir)
    files = itertools.count(1)
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and next(files) == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    expected_error = r"(imagenet2012-\w+\.tfrecord-\d+-of-\d+) cannot be written: Input"
    with pytest.raises(errors.StorageError, match=expected_error) as caught:
        run(job)
    assert not disturbed.is_published(dataset)
    deadline = time.monotonic() + 20
    while disturbed.unfinished(dataset):  # shards that were being finished beside it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    in_place = [path for split in model.SPLITS for path in layout.shards_in(dataset, split)]
    assert set(disturbed.recorded_shards(dataset)) == set(in_place)
    failed = re.search(expected_error, str(caught.value))
    assert failed is not None
    assert failed[1] not in {path.name for path in in_place}
    assert 0 <= len(in_place) - (nth - 3) < 6  # three are finished at a time
    run(job)
    require_right(job, expected)


def test_a_folder_that_does_not_reach_the_disk_is_not_published(
    job: Job, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(errors.StorageError, match="cannot be written: Input"):
            run(job)
    assert not disturbed.is_published(Path(job.dataset_dir))
    run(job)
    require_right(job, expected)


def test_a_run_whose_commit_was_lost_fails_and_the_next_one_keeps_its_shards(
    archives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build = pipeline.build

    def build_with_fault(graph: beam.Pipeline, job: Job) -> None:
        build(graph, job)
        graph.visit(Wrap("Job/Map(decode)", functools.partial(Faulty, copies=0, nth=1)))

    given = [f"--manual_dir={archives}", f"--data_dir={tmp_path}", SHARDS]
    given += ["--direct_running_mode=in_memory"]
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "build", build_with_fault)
        assert __main__.main(given) == 1
    assert "never ran the job's last step" in capsys.readouterr().err
    assert not disturbed.is_published(tmp_path / commands.VERSION_FOLDER)
    assert __main__.main(given) == 0
    assert disturbed.kept_shards(capsys.readouterr().out) == TOTAL
