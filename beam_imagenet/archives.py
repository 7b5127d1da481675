"""Where the archives and the dataset are: found by TFDS's rules, or where the user says.

Knows nothing of Beam, so that commands which only look need not wait for it; and nothing of what is in
an archive.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beam_imagenet import storage
from beam_imagenet.errors import UsageError
from beam_imagenet.model import ARCHIVES, DATASET_NAME, SPLITS, Source
from beam_imagenet.storage import ArchiveFile, Identity

VERSIONS = ("5.1.0", "5.0.0")


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds the options that `find_sources` and `dataset_dir` read."""
    parser.add_argument(
        "--manual_dir", metavar="DIR", help="folder of the archives [DATA_DIR/downloads/manual]"
    )
    add_dataset_arguments(parser)
    for split in SPLITS:
        parser.add_argument(
            f"--{split}", metavar="PATH", help=f"the {split} archive, if it lies elsewhere"
        )
    parser.add_argument(
        "--splits", metavar="A,B", help="splits to convert [those whose archives are there]"
    )


def add_dataset_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds the options that `dataset_dir` reads."""
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="where datasets go [$TFDS_DATA_DIR or ~/tensorflow_datasets]",
    )
    parser.add_argument(
        "--dataset_version",
        choices=VERSIONS,
        default=VERSIONS[0],
        help="5.0.0 has no test split [5.1.0]",
    )


def dataset_dir(given: Any) -> Path:
    """The dataset's folder, DATA_DIR/imagenet2012/VERSION.

    Args:
        given: Parsed options, those of `add_arguments` among them.
    """
    return _data_dir(given) / DATASET_NAME / str(given.dataset_version)


def splits_of(version: str) -> tuple[str, ...]:
    """The splits that a version of the dataset can have."""
    return SPLITS if version >= "5.1.0" else SPLITS[:2]


def find_sources(given: Any) -> tuple[Source, ...]:
    """Finds the archives that the options ask for, as they are now.

    Args:
        given: Parsed options, those of `add_arguments` among them.

    Raises:
        UsageError: There is none, or one that was asked for is not there.
        StorageError: An archive cannot be read.
    """
    if given.manual_dir == "":
        raise UsageError("--manual_dir is empty; leave it out for the default folder.")
    manual_dir = (
        _local(given.manual_dir) if given.manual_dir else _data_dir(given) / "downloads" / "manual"
    )
    found = {
        split: path
        for split in SPLITS
        if (path := _find_archive(split, getattr(given, split), manual_dir)) is not None
    }
    wanted = _wanted_splits(given.splits, found, manual_dir, version=given.dataset_version)
    for split in SPLITS:
        if getattr(given, split) and split not in wanted:
            raise UsageError(f"--{split} names an archive of a split that is not converted.")
    return tuple(_source(split, str(found[split])) for split in wanted)


def _source(split: str, path: str) -> Source:
    identity = storage.identity(path)
    return Source(split=split, archive=path, size=identity.size, modified=identity.modified)


def opened(source: Source) -> ArchiveFile:
    """Opens an archive, if it still is the one that was found.

    Raises:
        StorageError: It cannot be opened, or changed since.
    """
    expected = Identity(size=source.size, modified=source.modified)
    return ArchiveFile(source.archive, expected=expected)


def _data_dir(given: Any) -> Path:
    if given.data_dir == "":
        raise UsageError("--data_dir is empty; leave it out for the default folder.")
    return _local(given.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence that names the known word which is nearest to `name`."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; the nearest known one is {close[0]}." if close else "."


def _local(path: str) -> Path:
    if "://" in path:
        raise UsageError(
            f"{path}: only folders and files of a file system can be used in this version."
        )
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"{path}: {error}") from error


def _find_archive(split: str, given: str | None, manual_dir: Path) -> Path | None:
    if given:
        path = _local(given)
        if not path.exists():
            raise UsageError(f"--{split}={given}: there is no such file.")
        if not path.is_file():
            raise UsageError(f"--{split}={given}: that is no plain file.")
        return path
    there = [manual_dir / name for name in ARCHIVES[split] if (manual_dir / name).is_file()]
    if len(there) > 1:
        raise UsageError(
            f"{manual_dir} holds two {split} archives, {there[0].name} and {there[1].name}. "
            f"Say which one to use: --{split}={there[0]}"
        )
    return there[0] if there else None


def _wanted_splits(
    given: str | None, found: Mapping[str, Path], manual_dir: Path, *, version: str
) -> tuple[str, ...]:
    possible = splits_of(version)
    if given is None:
        wanted = tuple(split for split in possible if split in found)
        if not wanted:
            names = [" or ".join(ARCHIVES[split]) for split in possible]
            raise UsageError(
                f"No archive was found. Looked in {manual_dir} for: {'; '.join(names)}. Put the archives of "
                "https://image-net.org/download-images there, or say where they are with --manual_dir."
            )
        return wanted
    names = [name for name in given.split(",") if name]
    for name in names:
        if name not in SPLITS:
            raise UsageError(f"--splits={given}: there is no split {name!r}{nearest(name, SPLITS)}")
        if name not in possible:
            raise UsageError(f"--splits={given}: version {version} has no {name} split; 5.1.0 has.")
        if name not in found:
            raise UsageError(
                f"--splits={given}: the {name} archive was not found. Looked in {manual_dir} for "
                f"{' or '.join(ARCHIVES[name])}. Say where it is with --manual_dir or --{name}."
            )
    if not names:
        raise UsageError("--splits names no split.")
    return tuple(split for split in SPLITS if split in names)
