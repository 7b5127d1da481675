"""The `clean` command: removes what runs have left and no dataset points to, and nothing else.

What is a run's own is told by the names that only this package gives (`layout.py`). Knows nothing of Beam.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from beam_imagenet import archives, layout, storage
from beam_imagenet.errors import UsageError
from beam_imagenet.model import SPLITS

USAGE = "python -m beam_imagenet clean [--data_dir=DIR] [options]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leftover:
    """Files and folders that can go together, and what they are."""

    what: str
    paths: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files in it."""
        return sum(storage.total_size(path) for path in self.paths)


def leftovers(dataset: Path) -> list[Leftover]:
    """What no dataset points to in a dataset's folder. Reads only.

    Raises:
        StorageError: The folder, or what is published in it, cannot be read.
    """
    return [leftover for leftover in _found(dataset) if leftover.paths]


def _found(dataset: Path) -> Iterator[Leftover]:
    published = layout.read_published(dataset)
    in_use = {
        layout.generation(split.name, split.fingerprint)
        for split in published.splits.values()
        if split.fingerprint is not None
    }
    for split in SPLITS:
        claimed = layout.claimed_by(dataset, split)
        there = published.splits.get(split)
        if claimed is None or (there is not None and there.folder == ""):
            continue
        paths = (layout.claim_path(dataset, split), *layout.shards_in(dataset, split))
        state = "begun, never published" if there is None else "replaced by another"
        yield Leftover(what=f"{split} split, {state}", paths=paths)
    for folder, what in (
        (dataset, "shards of a generation"),
        (dataset / layout.STATE, "records of a run"),
        (dataset / layout.QUARANTINE, "images that a run left out"),
    ):
        for path in storage.list_folder(folder):
            parts = layout.split_of_generation(path.name)
            is_folder = path.is_dir() and not path.is_symlink()
            if parts is not None and is_folder and path.name not in in_use:
                yield Leftover(what=f"{parts[0]} split, {what}", paths=(path,))
    abandoned = storage.abandoned(layout.scratch(dataset))
    yield Leftover(what="unfinished files of runs that were killed", paths=tuple(abandoned))


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
        arguments: What follows `clean` on the command line.

    Returns:
        The exit status, 0.

    Raises:
        UsageError: The call was wrong, or a run is writing there.
        StorageError: Something cannot be read or removed.
    """
    given = _parser().parse_args(arguments)
    dataset = archives.dataset_dir(given)
    if not dataset.is_dir():
        raise UsageError(f"There is no folder {dataset}. Say where it is with --data_dir.")
    scratch = layout.scratch(dataset)
    if not scratch.is_dir():
        print(f"{dataset}: nothing to remove.")
        return 0
    if given.dry_run:
        _print(dataset, _sized(leftovers(dataset)), verb="would be removed")
        return 0
    with storage.locked(layout.lock(dataset)):
        if storage.is_in_use(scratch):
            raise UsageError(f"A run is writing to {dataset}. Clean when it has ended.")
        found = leftovers(dataset)
        sized = _sized(found)
        storage.sweep(scratch)
        for leftover in found:
            for path in leftover.paths:
                if path.parent != scratch:
                    storage.remove(path)
    _print(dataset, sized, verb="removed")
    return 0


def _sized(found: Sequence[Leftover]) -> list[tuple[Leftover, int]]:
    return [(leftover, leftover.num_bytes) for leftover in found]


def _print(dataset: Path, found: Sequence[tuple[Leftover, int]], *, verb: str) -> None:
    for leftover, size in found:
        first = leftover.paths[0].relative_to(dataset)
        more = f" and {len(leftover.paths) - 1:,} more" if len(leftover.paths) > 1 else ""
        print(f"{leftover.what}: {first}{more}, {size / 1e6:,.1f} MB")
    total = sum(size for _, size in found)
    print(
        f"{dataset}: {total / 1e6:,.1f} MB {verb}." if found else f"{dataset}: nothing to remove."
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"clean: {message}. See clean --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m beam_imagenet clean",
        usage=USAGE,
        allow_abbrev=False,
        description="Removes what runs have left in a dataset's folder and no dataset points to: shards and "
        "records of runs that never ended, and generations that were replaced. After it, an unfinished run "
        "starts from zero, and a replaced dataset cannot be switched back to.",
    )
    archives.add_dataset_arguments(parser)
    parser.add_argument("--dry_run", action="store_true", help="lists, and removes nothing")
    return parser
