"""The stages of the job as Beam transforms, each a thin wrapper of a pure function.

Holds no rule of its own: what a stage does is in inventory.py, plan.py, shard.py and commit.py.
"""

import dataclasses
import pickle
import zlib
from collections.abc import Iterable, Iterator
from typing import Literal

import apache_beam as beam
from apache_beam import pvalue

from beam_imagenet import archives, inventory
from beam_imagenet.commit import commit
from beam_imagenet.model import Job, MemberBatch, Segment, ShardResult, ShardTask, Source, SplitPlan
from beam_imagenet.plan import plan_split
from beam_imagenet.shard import ShardWriter

PLANS = "plans"
TASKS = "tasks"


class ColumnsCoder(beam.coders.Coder):
    """Pickles and deflates the elements that hold columns.

    An engine keeps several copies of what crosses a shuffle. Names repeat, so this halves all of them,
    and costs about 0.4 us an image.
    """

    def encode(self, value: MemberBatch | ShardTask) -> bytes:
        """The element's bytes."""
        return zlib.compress(pickle.dumps(value, protocol=5), level=1)

    def decode(self, encoded: bytes) -> MemberBatch | ShardTask:
        """The element of `encode`'s bytes."""
        value: MemberBatch | ShardTask = pickle.loads(zlib.decompress(encoded))
        return value

    def estimate_size(self, value: MemberBatch | ShardTask) -> int:
        """Bytes of the columns; Beam's counters ask, and would encode the element to know."""
        return value.names.nbytes + value.offsets.nbytes + value.sizes.nbytes + value.labels.nbytes

    def is_deterministic(self) -> bool:
        """Pickles of equal values may differ; no key is coded so."""
        return False


beam.coders.registry.register_coder(MemberBatch, ColumnsCoder)
beam.coders.registry.register_coder(ShardTask, ColumnsCoder)


@dataclasses.dataclass(kw_only=True)
class ReadHeaders(beam.PTransform):
    """Archives (`Source`) to their members, a batch a segment: (split, `MemberBatch`)."""

    job: Job

    def expand(
        self, sources: beam.PCollection[Source]
    ) -> beam.PCollection[tuple[str, MemberBatch]]:
        """Builds the stage."""
        return (
            sources
            | "ListSegments" >> beam.FlatMap(_list_segments)
            | "SpreadSegments" >> beam.Reshuffle()
            | "WalkHeaders" >> beam.Map(_read_segment, keep_member_path=self.job.keep_member_path)
        )


@dataclasses.dataclass(kw_only=True)
class PlanShards(beam.PTransform):
    """Member batches by split to the splits' plans (`SplitPlan`) and `ShardTask`s, two collections."""

    job: Job

    def expand(self, batches: beam.PCollection[tuple[str, MemberBatch]]):  # type: ignore[no-untyped-def]
        """Builds the stage; the outputs' types are those of `_plan_split`, not of one collection."""
        return (
            batches
            | "GroupBySplit" >> beam.GroupByKey()
            | "PlanSplit" >> beam.FlatMap(_plan_split, job=self.job).with_outputs(PLANS, TASKS)
        )


@dataclasses.dataclass(kw_only=True)
class WriteShards(beam.PTransform):
    """`ShardTask`s to files, and a `ShardResult` for each."""

    job: Job

    def expand(self, tasks: beam.PCollection[ShardTask]) -> beam.PCollection[ShardResult]:
        """Builds the stage."""
        return (
            tasks
            | "SpreadShards" >> beam.Reshuffle()
            | "WriteShard" >> beam.ParDo(_WriteShard(self.job))
        )


@dataclasses.dataclass(kw_only=True)
class Commit(beam.PTransform):
    """One `Job` to a dataset, once all plans and results are there; runs even if none arrived."""

    plans: beam.PCollection[SplitPlan]
    results: beam.PCollection[ShardResult]

    def expand(self, jobs: beam.PCollection[Job]) -> beam.PCollection[None]:
        """Builds the stage."""
        return jobs | "WriteDatasetInfo" >> beam.Map(
            commit, pvalue.AsList(self.plans), pvalue.AsList(self.results)
        )


def _list_segments(source: Source) -> Iterator[Segment]:
    with archives.opened(source) as archive:
        yield from inventory.list_segments(source, archive)


def _read_segment(segment: Segment, keep_member_path: bool) -> tuple[str, MemberBatch]:
    with archives.opened(segment.source) as archive:
        batch = inventory.read_segment(segment, archive, keep_member_path=keep_member_path)
        archive.require_unchanged()
    return segment.source.split, batch


def _plan_split(
    keyed: tuple[str, Iterable[MemberBatch]], job: Job
) -> Iterator[
    pvalue.TaggedOutput[Literal["plans"], SplitPlan]
    | pvalue.TaggedOutput[Literal["tasks"], ShardTask]
]:
    split, batches = keyed
    source = next(source for source in job.sources if source.split == split)
    plan, tasks = plan_split(source, batches)
    yield pvalue.TaggedOutput(PLANS, plan)
    for task in tasks:
        yield pvalue.TaggedOutput(TASKS, task)


class _WriteShard(beam.DoFn):
    """A `ShardWriter` for each bundle, which is done when all its shards are in their places."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def start_bundle(self) -> None:
        self._writer = ShardWriter(self._job)

    def process(self, task: ShardTask) -> Iterator[ShardResult]:
        with archives.opened(task.source) as archive:
            yield self._writer.write(task, archive)

    def finish_bundle(self) -> None:
        self._writer.finish()
