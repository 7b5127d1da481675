"""The last step of the job: reconcile, describe, and only then make the shards a dataset.

Knows the files of a dataset's folder. Nothing of Beam.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from beam_imagenet import dataset_info, storage, summary
from beam_imagenet.model import Job, ShardResult, SplitPlan

DATASET_INFO = "dataset_info.json"
RESULT = "result.json"


def commit(job: Job, plans: Sequence[SplitPlan], results: Sequence[ShardResult]) -> None:
    """Reconciles what arrived and writes the dataset's description, `dataset_info.json` last.

    Running it again does the same again.

    Args:
        job: What was to be done.
        plans: The plan of every split.
        results: One for each shard written.

    Raises:
        ReconcileError: What arrived is not exactly what was to be done; nothing was written.
        StorageError: A file cannot be written.
    """
    dataset_info.reconcile(job, plans, results)
    folder = Path(job.dataset_dir)
    result = summary.summarize(job, plans, results, finished=time.time())
    storage.write_file(folder / "features.json", dataset_info.features_json())
    storage.write_file(folder / "label.labels.txt", dataset_info.label_names())
    storage.write_file(folder / RESULT, summary.to_json(result))
    # TFDS takes a folder with this file for a dataset, so it comes when all else is there.
    storage.write_file(folder / DATASET_INFO, dataset_info.dataset_info_json(job, plans, results))
