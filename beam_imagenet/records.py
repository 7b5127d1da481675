"""What is known of what was written: a small file a shard, by which a run goes on, and one a split.

A record comes after its shard is whole and on the disk, so a shard with a record need not be written
again. Knows nothing of Beam, or of how shards are written.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from beam_imagenet import layout, storage
from beam_imagenet.model import Checks, ColorFix, Finding, ShardResult, Source
from beam_imagenet.summary import SplitSummary

_SUFFIX = ".record.json"


def find(
    source: Source, shard: str, *, dataset: Path, checks: Checks, names_digest: str
) -> ShardResult | None:
    """What is known of a shard, or None if it has to be written.

    Args:
        source: The split's archive; only shards of the same fingerprint are looked for.
        shard: File name.
        dataset: The dataset's folder.
        checks: What its images must have passed.
        names_digest: Of the file names that it must hold.

    Raises:
        StorageError: The record cannot be read.
    """
    result = _read_shard(_path(dataset, source, shard))
    if result is None or result.names_digest != names_digest:
        return None
    return result if _may_be_kept(result, source, dataset=dataset, checks=checks) else None


def kept(source: Source, *, dataset: Path, checks: Checks) -> list[ShardResult]:
    """All shards of the split that need not be written again, as far as is known before it is planned.

    Raises:
        StorageError: A record cannot be read.
    """
    staging = layout.staging(dataset, source.split, source.fingerprint)
    found = [
        _read_shard(path) for path in storage.list_folder(staging) if path.name.endswith(_SUFFIX)
    ]
    return [
        result
        for result in found
        if result is not None and _may_be_kept(result, source, dataset=dataset, checks=checks)
    ]


def keep(result: ShardResult, source: Source, *, dataset: Path) -> None:
    """Records a shard that is whole, in its place and on the disk.

    Raises:
        StorageError: The record cannot be written.
    """
    path = _path(dataset, source, result.shard)
    storage.write_file(path, _to_json(result), scratch=layout.scratch(dataset))


def _path(dataset: Path, source: Source, shard: str) -> Path:
    return layout.staging(dataset, source.split, source.fingerprint) / f"{shard}{_SUFFIX}"


def _may_be_kept(result: ShardResult, source: Source, *, dataset: Path, checks: Checks) -> bool:
    size = storage.size_if_there(dataset / source.folder / result.shard)
    return result.serves(checks) and size == result.file_bytes


def keep_summary(row: SplitSummary, *, dataset: Path) -> None:
    """Records a split that is complete.

    Raises:
        StorageError: The record cannot be written.
    """
    path = _summary_path(dataset, row.split, row.fingerprint)
    storage.write_file(path, _to_json(row), scratch=layout.scratch(dataset), flush=True)


def find_summary(split: str, fingerprint: str, *, dataset: Path) -> SplitSummary | None:
    """What is known of a split that is complete, or None.

    Raises:
        StorageError: The record cannot be read.
    """
    fields = _read(_summary_path(dataset, split, fingerprint))
    try:
        if fields is None:
            return None
        return SplitSummary(**{**fields, "suspicions": tuple(fields["suspicions"])})
    except (KeyError, TypeError):
        return None  # another version's


def _summary_path(dataset: Path, split: str, fingerprint: str) -> Path:
    return layout.staging(dataset, split, fingerprint) / layout.RESULT


def _to_json(row: ShardResult | SplitSummary) -> bytes:
    return (json.dumps(dataclasses.asdict(row)) + "\n").encode("utf-8")


def _read_shard(path: Path) -> ShardResult | None:
    fields = _read(path)
    try:
        return ShardResult(**fields) if fields is not None else None
    except TypeError:
        return None  # another version's


def _read(path: Path) -> dict[str, Any] | None:
    content = storage.read_file(path)
    if content is None:
        return None
    try:
        fields = json.loads(content)
        return {
            **fields,
            "fixes": tuple(ColorFix(**fix) for fix in fields["fixes"]),
            "bad": tuple(Finding(**finding) for finding in fields["bad"]),
            "suspect": tuple(Finding(**finding) for finding in fields["suspect"]),
        }
    except (ValueError, KeyError, TypeError):
        return None  # a loss of power can leave it empty; what it told of is written again
