"""What a run finds at its target: what is complete, what it may write, and where.

A split that is not published is written to TFDS's own place, which a claim keeps for one fingerprint;
one that replaces another goes into a folder of its own. Knows nothing of Beam, archives' content or
images.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from beam_imagenet import layout, records, storage
from beam_imagenet.errors import StorageError, UsageError
from beam_imagenet.layout import Published
from beam_imagenet.model import Checks, Job, ShardResult, Source
from beam_imagenet.storage import WholeFile
from beam_imagenet.summary import SplitSummary

_FLAT = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What is left to do.

    Attributes:
        job: The splits that are to be written, each with its folder.
        complete: Splits that are there already.
        kept: Shards of the job's splits that need not be written again, by split.
        bytes_there: Bytes of shards that are kept, or that new ones take the place of.
    """

    job: Job
    complete: tuple[str, ...]
    kept: dict[str, list[ShardResult]]
    bytes_there: int


def examine(job: Job, *, overwrite: bool, fresh: bool) -> Target:
    """Compares what is there with what was asked for. Changes nothing.

    Args:
        job: What was asked for.
        overwrite: Whether published splits that differ may be replaced.
        fresh: Whether all is written anew, and another run's unpublished work may be discarded.

    Raises:
        UsageError: Something is in the way.
        StorageError: What is there cannot be read.
    """
    dataset = Path(job.dataset_dir)
    published = layout.read_published(dataset)
    if published.version not in (None, job.version):
        raise UsageError(
            f"{dataset / layout.DATASET_INFO} says version {published.version}, not {job.version}. Move the "
            "dataset to a folder of its version, or choose another --data_dir."
        )
    complete: list[str] = []
    sources: list[Source] = []
    for source in job.sources:
        folder = _folder(source, dataset, published, overwrite=overwrite, fresh=fresh)
        source = dataclasses.replace(source, folder=folder)
        if not fresh and is_complete(source, dataset, published, checks=job.checks):
            complete.append(source.split)
        else:
            sources.append(source)
    return Target(
        job=dataclasses.replace(job, sources=tuple(sources), seen=published.digest),
        complete=tuple(complete),
        kept={
            source.split: [] if fresh else records.kept(source, dataset=dataset, checks=job.checks)
            for source in sources
        },
        bytes_there=sum(
            storage.total_size(shard)
            for source in sources
            for shard in layout.shards_in(dataset / source.folder, source.split)
        ),
    )


def _folder(
    source: Source, dataset: Path, published: Published, *, overwrite: bool, fresh: bool
) -> str:
    """Where the split's shards go, relative to the dataset's folder."""
    split = published.splits.get(source.split)
    claimed = layout.claimed_by(dataset, source.split)
    if split is not None and split.fingerprint == source.fingerprint and split.folder is not None:
        return split.folder
    if split is not None and not overwrite:
        raise UsageError(
            f"{dataset} holds a {source.split} split already, which was made from another archive (its path, "
            "size and time of change count), with other options or other versions. Add --overwrite to "
            "replace it (its readers see the old one until the new one is complete), leave it out with "
            "--splits, or choose another --data_dir."
        )
    if split is not None:
        in_place = claimed == source.fingerprint
        return _FLAT if in_place else layout.generation(source.split, source.fingerprint)
    shards = layout.shards_in(dataset, source.split)
    if fresh or claimed == source.fingerprint:
        return _FLAT
    if claimed is not None and (shards or storage.is_in_use(layout.scratch(dataset))):
        raise UsageError(
            f"{dataset} holds the begun {source.split} split of another run, from another archive (its path, "
            "size and time of change count), with other options or other versions. Add --fresh to discard "
            "what it has written, or end that run with its own archive and options, or choose another "
            "--data_dir."
        )
    if claimed is None and shards:
        raise UsageError(
            f"{dataset} holds {len(shards):,} files of a {source.split} split that belong to no dataset and "
            f"no run, {shards[0].name} for one. Move them away, add --fresh to remove them, or choose "
            "another --data_dir."
        )
    return _FLAT


def is_complete(source: Source, dataset: Path, published: Published, *, checks: Checks) -> bool:
    """Whether a split is published, whole, of this fingerprint, and checked as closely as is asked.

    Raises:
        StorageError: What is there cannot be read.
    """
    split = published.splits.get(source.split)
    if split is None or split.fingerprint != source.fingerprint or not split.is_whole(dataset):
        return False
    result = records.find_summary(source.split, source.fingerprint, dataset=dataset)
    return result is not None and result.serves(checks)


def summaries(job: Job) -> list[SplitSummary] | None:
    """What was done for each of the job's splits, or None if not all of them are complete."""
    dataset = Path(job.dataset_dir)
    published = layout.read_published(dataset)
    if not all(
        is_complete(source, dataset, published, checks=job.checks) for source in job.sources
    ):
        return None
    rows = [
        records.find_summary(source.split, source.fingerprint, dataset=dataset)
        for source in job.sources
    ]
    return [row for row in rows if row is not None]


@contextlib.contextmanager
def occupied(target: Target, *, fresh: bool) -> Iterator[None]:
    """Makes the target ready to be written to, and tells others that a run is at work until the block ends.

    Raises:
        UsageError: Another run is in the way.
        StorageError: The target cannot be written to.
    """
    dataset = Path(target.job.dataset_dir)
    scratch = layout.scratch(dataset)
    storage.make_folder(scratch)
    with storage.locked(layout.lock(dataset)):
        storage.sweep(scratch)
        if fresh:
            _discard(target.job, dataset)
        for source in target.job.sources:
            storage.make_folder(layout.staging(dataset, source.split, source.fingerprint))
            storage.make_folder(dataset / source.folder)
            if source.folder == _FLAT:
                _claim(source, dataset)
        # Never published. It is held until this process ends, however it ends, and nobody waits for it.
        presence = WholeFile(layout.lock(dataset), scratch=scratch)
    try:
        with presence:
            yield
    finally:
        with contextlib.suppress(StorageError):  # the next run sweeps as well
            storage.sweep(scratch)


def _discard(job: Job, dataset: Path) -> None:
    """What --fresh does before anything else."""
    if storage.is_in_use(layout.scratch(dataset)):
        raise UsageError(
            f"Another run is writing to {dataset}, and --fresh would discard its work. Wait until it has "
            "ended, leave --fresh out, or choose another --data_dir."
        )
    published = layout.read_published(dataset)
    for path in list(_discarded(job, dataset, published)):
        storage.remove(path)


def _claim(source: Source, dataset: Path) -> None:
    """Takes TFDS's own place for a split; under the lock, so that only one fingerprint gets it."""
    claimed = layout.claimed_by(dataset, source.split)
    if claimed == source.fingerprint:
        return
    scratch = layout.scratch(dataset)
    if claimed is not None and (
        layout.shards_in(dataset, source.split) or storage.is_in_use(scratch)
    ):
        raise UsageError(
            f"Another run has just begun to write the {source.split} split to {dataset}, with other options. "
            "Let it end, or choose another --data_dir."
        )
    path = layout.claim_path(dataset, source.split)
    content = f"{source.fingerprint}\n".encode("ascii")
    storage.write_file(path, content, scratch=scratch, flush=True)


def _discarded(job: Job, dataset: Path, published: Published) -> Iterator[Path]:
    """What --fresh removes: records of the job's shards, and others' work that is in its way."""
    for source in job.sources:
        yield layout.staging(dataset, source.split, source.fingerprint)
        split = published.splits.get(source.split)
        if source.folder != _FLAT or (split is not None and split.folder == _FLAT):
            continue
        claimed = layout.claimed_by(dataset, source.split)
        yield from layout.shards_in(dataset, source.split)
        if claimed is not None:
            yield layout.staging(dataset, source.split, claimed)
        yield layout.claim_path(dataset, source.split)
