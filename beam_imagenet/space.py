"""Whether the dataset has room on its disk. Knows nothing of archives' content, or of Beam."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from beam_imagenet.errors import StorageError
from beam_imagenet.model import Source


def needed_bytes(sources: Iterable[Source]) -> int:
    """An upper bound of what the dataset takes.

    A record's frame and keys are smaller than a member's tar header, so a dataset is smaller than its
    archives; that of ImageNet has 0.996 of their bytes.
    """
    return sum(source.size for source in sources)


def room(folder: Path) -> int:
    """Bytes that are free where `folder` is, or would be made.

    Raises:
        StorageError: That cannot be found out.
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        return shutil.disk_usage(there).free
    except OSError as error:
        raise StorageError(f"The room in {there} cannot be told: {error.strerror}.") from error


def require_room(sources: Iterable[Source], dataset_dir: Path, *, already: int) -> None:
    """Stops a run that would fill the disk before it is done.

    Args:
        sources: What is converted.
        dataset_dir: The dataset's folder; it need not be there.
        already: Bytes of the dataset that are there and stay.

    Raises:
        StorageError: There is too little room.
    """
    needed = needed_bytes(sources)
    free = room(dataset_dir)
    if free + already < needed:
        there = f" ({readable_size(already)} of them are there already)" if already else ""
        raise StorageError(
            f"The dataset needs up to {readable_size(needed)} in {dataset_dir}{there}, but only "
            f"{readable_size(free)} are free. Make room, or choose another --data_dir."
        )


def readable_size(size: int) -> str:
    """A number of bytes for a person."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
