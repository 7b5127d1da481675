"""The stages of a job one after the other, in this process and without an engine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from beam_imagenet import inventory, options, plan, target
from beam_imagenet.model import Job, ShardResult, ShardTask, SplitPlan
from beam_imagenet.shard import ShardWriter
from beam_imagenet.storage import ArchiveFile


def occupied(archives: Path, data_dir: Path, *more: str) -> Job:
    """A job as the command line makes it, with its place made ready."""
    given = (f"--manual_dir={archives}", f"--data_dir={data_dir}", *more)
    asked = options.job_from_options(options.parse(given))
    found = target.examine(asked, overwrite=False, fresh=False)
    with target.occupied(found, fresh=False):
        return found.job


def planned(job: Job) -> tuple[list[SplitPlan], list[ShardTask]]:
    """The plans of all splits, and their shards."""
    plans: list[SplitPlan] = []
    tasks: list[ShardTask] = []
    for source in job.sources:
        with ArchiveFile(source.archive) as archive:
            batches = [
                inventory.read_segment(segment, archive, keep_member_path=False)
                for segment in inventory.list_segments(source, archive)
            ]
        split, shards = plan.plan_split(source, batches)
        plans.append(split)
        tasks += shards
    return plans, tasks


def write(job: Job, tasks: Iterable[ShardTask]) -> list[ShardResult]:
    """One bundle of shards, from its start to its end."""
    writer = ShardWriter(job)
    results = []
    for task in tasks:
        with ArchiveFile(task.source.archive) as archive:
            results.append(writer.write(task, archive))
    writer.finish()
    return results
