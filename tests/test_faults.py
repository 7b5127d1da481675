"""An engine that loses or repeats an element of any stage never gets a dataset published."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pipeline import PipelineVisitor

from beam_imagenet import __main__, commit, errors, pipeline
from beam_imagenet.model import Job, Source
from tests import commands

STAGES = [
    # step, and which of the elements that it puts out is dropped or doubled
    ("Archives/Map(decode)", 2),
    ("ReadHeaders/ListSegments", 500),
    ("ReadHeaders/SpreadSegments/AddRandomKeys", 1002),
    ("ReadHeaders/WalkHeaders", 1),
    ("PlanShards/PlanSplit/FlatMap(_plan_split)", 1),  # a plan
    ("PlanShards/PlanSplit/FlatMap(_plan_split)", 2),  # a task
    ("WriteShards/SpreadShards/AddRandomKeys", 12),
    ("WriteShards/WriteShard", 7),
]


class Faulty(beam.DoFn):
    """A step that puts out its n-th element `copies` times: dropped with 0, doubled with 2."""

    def __init__(self, step: beam.DoFn, *, copies: int, nth: int) -> None:
        self._step = step
        self._copies = copies
        self._left = nth

    def process(self, element: Any, *arguments: Any, **named: Any) -> Iterator[Any]:
        for output in self._step.process(element, *arguments, **named):
            self._left -= 1
            yield from [output] * (self._copies if self._left == 0 else 1)


class FaultInStage(PipelineVisitor):
    """Wraps the step of one stage in a `Faulty`."""

    def __init__(self, label: str, *, copies: int, nth: int) -> None:
        self.wrapped = 0
        self._label = label
        self._copies = copies
        self._nth = nth

    def visit_transform(self, applied: Any) -> None:
        if applied.full_label == self._label:
            step = applied.transform.fn
            applied.transform.fn = Faulty(step, copies=self._copies, nth=self._nth)
            self.wrapped += 1


def make_job(archives: Path, data_dir: Path) -> Job:
    names = {"train": "train", "validation": "val", "test": "test"}
    paths = {split: archives / f"ILSVRC2012_img_{name}.tar" for split, name in names.items()}
    return Job(
        run_id=uuid.uuid4().hex,
        dataset_dir=str(data_dir),
        version="5.1.0",
        keep_member_path=False,
        sources=tuple(
            Source(split=split, archive=str(path), size=path.stat().st_size, num_shards=4)
            for split, path in paths.items()
        ),
    )


def run(job: Job, fault: FaultInStage) -> None:
    graph = beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner")
    pipeline.build(graph, job)
    graph.visit(fault)
    assert fault.wrapped == 1
    graph.run().wait_until_finish()


@pytest.mark.parametrize(("label", "nth"), STAGES)
@pytest.mark.parametrize("copies", [0, 2], ids=["dropped", "doubled"])
def test_a_lost_or_repeated_element_is_noticed(
    archives: Path, tmp_path: Path, label: str, nth: int, copies: int
) -> None:
    with pytest.raises(errors.ReconcileError, match="No dataset"):
        run(make_job(archives, tmp_path), FaultInStage(label, copies=copies, nth=nth))
    assert not (tmp_path / commit.DATASET_INFO).exists()


@pytest.mark.parametrize(("label", "nth"), STAGES)
def test_the_same_graph_without_a_fault_publishes(
    archives: Path, tmp_path: Path, label: str, nth: int
) -> None:
    run(make_job(archives, tmp_path), FaultInStage(label, copies=1, nth=nth))
    assert (tmp_path / commit.DATASET_INFO).exists()


@pytest.mark.parametrize("label", ["Job/Map(decode)", "Commit/WriteDatasetInfo"])
def test_a_commit_that_runs_twice_gives_the_same_dataset(
    archives: Path, tmp_path: Path, label: str
) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    for folder, copies in ((once, 1), (twice, 2)):
        folder.mkdir()
        run(make_job(archives, folder), FaultInStage(label, copies=copies, nth=1))
    assert commands.dataset_files(once) == commands.dataset_files(twice)


def test_a_run_whose_commit_was_lost_fails(
    archives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build = pipeline.build

    def build_with_fault(graph: beam.Pipeline, job: Job) -> None:
        build(graph, job)
        graph.visit(FaultInStage("Job/Map(decode)", copies=0, nth=1))

    monkeypatch.setattr(pipeline, "build", build_with_fault)
    status = __main__.main(
        [
            f"--manual_dir={archives}",
            f"--data_dir={tmp_path}",
            "--direct_running_mode=in_memory",
        ]
    )
    assert status == 1
    assert "never ran the job's last step" in capsys.readouterr().err
