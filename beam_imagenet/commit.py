"""The last step of the job: reconcile, describe, and by one write make the shards a dataset.

Knows the files of a dataset's folder. Nothing of Beam.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from beam_imagenet import dataset_info, layout, records, storage, summary
from beam_imagenet.errors import ConflictError, ImageError, ReconcileError
from beam_imagenet.model import Job, ShardResult, SplitPlan


def commit(job: Job, plans: Sequence[SplitPlan], results: Sequence[ShardResult]) -> None:
    """Reconciles what arrived, and publishes it by writing `dataset_info.json`.

    Running it again, or twice at the same time, does the same again.

    Args:
        job: What was to be done.
        plans: The plan of every split.
        results: One for each shard written.

    Raises:
        ReconcileError: What arrived is not exactly what was to be done.
        ImageError: More images were left out than the job allows.
        ConflictError: Another run has published in the meantime, or discarded this one's work.
        StorageError: A file cannot be written.
        In any of these cases readers see what they saw before.
    """
    dataset_info.reconcile(job, plans, results)
    _require_few_bad(job, results)
    dataset = Path(job.dataset_dir)
    for source in job.sources:
        storage.flush_folder(dataset / source.folder)  # its files are on the disk already
    with storage.locked(layout.lock(dataset)):
        for source in job.sources:
            layout.require_ours(dataset, source)
        _require_files(job, results)
        for row in summary.summarize(job, plans, results, finished=time.time()):
            records.keep_summary(row, dataset=dataset)
        _publish(job, plans, results)
    write_result(dataset, version=job.version)


def write_result(dataset: Path, *, version: str) -> None:
    """Writes `result.json`, which tells of all published splits that this package made."""
    splits = layout.read_published(dataset).splits.values()
    rows = [
        row
        for split in splits
        if split.fingerprint is not None
        and (row := records.find_summary(split.name, split.fingerprint, dataset=dataset))
    ]
    content = summary.to_json(version, rows)
    storage.write_file(dataset / layout.RESULT, content, scratch=layout.scratch(dataset))


def _publish(job: Job, plans: Sequence[SplitPlan], results: Sequence[ShardResult]) -> None:
    """The one write by which readers see the new dataset; under the lock."""
    dataset = Path(job.dataset_dir)
    published = layout.read_published(dataset)
    content = dataset_info.dataset_info_json(job, plans, results, published=published.content)
    if content == published.content:
        storage.flush_folder(dataset)
        return  # an earlier attempt, or the same run somewhere else, was faster
    if published.digest != job.seen:
        raise ConflictError(
            f"The dataset in {dataset} changed under this run: another one has published there since it "
            "began. Nothing of that was touched. Run the same command again to see whether it is still "
            "wanted; shards that are written are kept."
        )
    scratch = layout.scratch(dataset)
    features, names = dataset_info.features_json(), dataset_info.label_names()
    storage.write_file(dataset / layout.FEATURES, features, scratch=scratch, flush=True)
    storage.write_file(dataset / layout.LABELS, names, scratch=scratch, flush=True)
    storage.write_file(dataset / layout.DATASET_INFO, content, scratch=scratch, flush=True)


def _require_few_bad(job: Job, results: Sequence[ShardResult]) -> None:
    for source in job.sources:
        if not any(result.num_examples for result in results if result.split == source.split):
            raise ImageError(
                f"{source.archive}: no image is left of the {source.split} split, all are bad. Nothing was "
                "published. Fetch the archive again."
            )
    checks = job.checks
    bad = sorted(finding.file_name for result in results for finding in result.bad)
    if not checks.keeps_bad and len(bad) > checks.max_bad_images:
        folders = [str(layout.quarantine(Path(job.dataset_dir), source)) for source in job.sources]
        raise ImageError(
            f"{len(bad):,} bad images were left out, more than --max_bad_images={checks.max_bad_images}: "
            f"{bad[0]} and so on. Nothing was published. They are in {', '.join(folders)}. Fetch the "
            "archives again, or run the same command with a higher --max_bad_images; shards that are written "
            "are kept."
        )


def _require_files(job: Job, results: Sequence[ShardResult]) -> None:
    """Looks once more whether each shard is in its place: somebody may have removed or replaced it."""
    folders = {source.split: Path(job.dataset_dir) / source.folder for source in job.sources}
    for result in results:
        path = folders[result.split] / result.shard
        size = storage.size_if_there(path)
        if size != result.file_bytes:
            found = "is not there any more" if size is None else f"has {size:,}"
            raise ReconcileError(
                f"{path} was written with {result.file_bytes:,} bytes, but {found}. No dataset was written. "
                "Something else changes that folder: run the same command again, which writes what is "
                "missing."
            )
