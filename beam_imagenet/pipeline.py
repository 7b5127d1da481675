"""The whole job on one screen."""

from __future__ import annotations

import apache_beam as beam

from beam_imagenet.model import Job
from beam_imagenet.transforms import PLANS, TASKS, Commit, PlanShards, ReadHeaders, WriteShards


def build(pipeline: beam.Pipeline, job: Job) -> None:
    """Adds the conversion to a pipeline.

    Only headers and plans pass between stages, about 35 bytes an image; the images themselves are read
    from the archive by the worker that writes their shard.

    Args:
        pipeline: Where to add it.
        job: What to convert.
    """
    archives = pipeline | "Archives" >> beam.Create(job.sources, reshuffle=False)
    batches = archives | "ReadHeaders" >> ReadHeaders(job=job)  # (split, MemberBatch), one a synset
    planned = batches | "PlanShards" >> PlanShards(job=job)  # SplitPlan, one a split; ShardTask
    results = planned[TASKS] | "WriteShards" >> WriteShards(job=job)  # ShardResult, one a shard
    # dataset_info.json appears here and nowhere else, and only if all counts agree.
    once = pipeline | "Job" >> beam.Create([job], reshuffle=False)
    once | "Commit" >> Commit(plans=planned[PLANS], results=results)
