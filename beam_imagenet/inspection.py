"""Tells whether archives are whole and official, before any work.

What costs a few milliseconds (`require_whole`) every conversion does before it starts; what reads a
whole archive (`full`) is for a person who wants to be sure. Knows nothing of Beam.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Protocol

from beam_imagenet import archives, inventory, labels, plan
from beam_imagenet.errors import ArchiveError
from beam_imagenet.model import MemberBatch, Source
from beam_imagenet.space import readable_size
from beam_imagenet.storage import ArchiveFile
from beam_imagenet.tar import BLOCK

OFFICIAL = "official"
OFFICIAL_SIZE = "has the official size; --full compares its checksum"
REPACKED = "complete but repacked"
DAMAGED = "damaged"
UNREADABLE = "cannot be read"

_HEAD_BYTES = 4 << 20
_LONG_TAIL = 1 << 20
_READ_BYTES = 4 << 20
_NAMED = 5
_TEST_CHECKSUM = "The only test archive whose checksum is known is that of October 10, 2019."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Official:
    """What is known of an official archive.

    Attributes:
        size: Its bytes, or None if that is not known.
        sha256: Its checksum.
    """

    size: int | None
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found of an archive.

    Attributes:
        source: The archive.
        verdict: In a few words.
        texts: Sentences that tell more: where and how it is damaged, what is missing or odd.
    """

    source: Source
    verdict: str
    texts: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether a conversion can be tried."""
        return self.verdict not in (DAMAGED, UNREADABLE)


class Progress(Protocol):
    """Is told how far an inspection is."""

    def __call__(self, stage: str, done: int) -> object:
        """Up to byte `done` of the archive, `stage` is over: "headers" or "checksum"."""


@functools.cache
def official_archives() -> Mapping[str, Official]:
    """The official archive of each split (data/archives.tsv)."""
    table = resources.files(__package__).joinpath("data", "archives.tsv")
    rows = csv.DictReader(table.read_text(encoding="ascii").splitlines(), delimiter="\t")
    return {
        row["split"]: Official(
            size=int(row["bytes"]) if row["bytes"] else None, sha256=row["sha256"]
        )
        for row in rows
    }


def quick(source: Source) -> Inspection:
    """Looks at an archive's size and at both its ends; a few milliseconds, whatever its size.

    What it calls damaged, a conversion would refuse. What it does not may still be damaged between.

    Raises:
        StorageError: The archive cannot be read.
    """
    try:
        zeros = _require_ends(source)
    except ArchiveError as error:
        return Inspection(source=source, verdict=DAMAGED, texts=(str(error),))
    official = official_archives()[source.split].size
    if official is None:
        verdict = "begins and ends as a whole archive does; --full compares its checksum"
    elif source.size == official:
        verdict = OFFICIAL_SIZE
    else:
        verdict = (
            f"has {source.size:,} bytes, not the official {official:,}, but begins and ends as a whole "
            "archive does; --full reads its headers"
        )
    texts = (
        f"Its last {readable_size(_LONG_TAIL)} and more are zeros. An interrupted download may look so; "
        "--full counts the images.",
    )
    return Inspection(source=source, verdict=verdict, texts=texts if zeros else ())


def require_whole(sources: Iterable[Source]) -> None:
    """Stops a run whose archives are damaged for certain, before it has done any work.

    Raises:
        ArchiveError: `quick` calls an archive damaged; the first such.
        StorageError: An archive cannot be read.
    """
    for source in sources:
        _require_ends(source)


def _require_ends(source: Source) -> bool:
    """Checks an archive's first headers and its end mark; whether zeros make up a long tail of it.

    Raises:
        ArchiveError: No conversion of it can succeed.
    """
    with archives.opened(source) as archive:
        if source.size >= BLOCK and archive.read(0, BLOCK) == bytes(BLOCK):
            raise ArchiveError(
                f"{source.archive} is damaged or no tar: at byte 0, there are zeros and no header. The "
                "download was probably interrupted; fetch it again."
            )
        with contextlib.suppress(_LongHead):
            inventory.require_start(source, _Head(archive))
        # The walk wants a block of zeros after the last member, and nothing but zeros behind it.
        if archive.read(source.size - BLOCK, BLOCK) != bytes(BLOCK):
            raise ArchiveError(_no_end_mark(source))
        if source.size <= _LONG_TAIL:
            return False
        return archive.read(source.size - _LONG_TAIL, _LONG_TAIL) == bytes(_LONG_TAIL)


def _no_end_mark(source: Source) -> str:
    official = official_archives()[source.split].size
    missing = ""
    if official is not None and source.size < official:
        missing = f" The official archive has {official:,} bytes, {official - source.size:,} more."
    return (
        f"{source.archive} is damaged: it ends at byte {source.size:,} without the zeros that end a tar, "
        f"so it was cut off.{missing} Resume the download, or fetch the archive again."
    )


class _LongHead(Exception):
    """The first headers are hard to get at: no reason to read on, and no damage either."""


class _Head:
    """An archive that can be read for a few megabytes, so that a look at its start stays short."""

    def __init__(self, archive: ArchiveFile) -> None:
        self.path = archive.path
        self._archive = archive
        self._left = _HEAD_BYTES

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`."""
        self._left -= size
        if self._left < 0:
            raise _LongHead
        return self._archive.read(offset, size)


def full(source: Source, progress: Progress) -> Inspection:
    """Reads every header of an archive, counts its images, and compares its checksum.

    Raises:
        StorageError: The archive cannot be read.
    """
    # Shards do not matter here, and too many of them are no damage.
    source = dataclasses.replace(source, num_shards=None)
    try:
        batches = _read_headers(source, progress)
        plan.plan_split(source, batches)
    except ArchiveError as error:
        return Inspection(source=source, verdict=DAMAGED, texts=(str(error),))
    texts = [text for batch in batches for text in batch.suspicions]
    checksum = _sha256(source, progress)
    official = official_archives()[source.split]
    if checksum == official.sha256:
        return Inspection(source=source, verdict=OFFICIAL, texts=tuple(texts))
    if source.split == "test":
        texts.append(_TEST_CHECKSUM)
    images, missing = _count(source.split, batches)
    if missing:
        texts.insert(0, f"Missing: {missing}.")
    if missing or images != labels.IMAGES[source.split]:
        verdict = f"whole, but holds {images:,} of {labels.IMAGES[source.split]:,} images"
    else:
        verdict = REPACKED
        if source.size == official.size:
            texts.append(
                "It has the official size and yet another checksum, so images in it may be damaged. Fetch it "
                "again, or convert it with --check_images=decode."
            )
    return Inspection(source=source, verdict=verdict, texts=tuple(texts))


def _read_headers(source: Source, progress: Progress) -> list[MemberBatch]:
    batches = []
    with archives.opened(source) as archive:
        for segment in inventory.list_segments(source, archive):
            batches.append(inventory.read_segment(segment, archive, keep_member_path=False))
            progress("headers", segment.stop)
    return batches


def _count(split: str, batches: Sequence[MemberBatch]) -> tuple[int, str]:
    """How many of the split's images are there, and which are missing, in words.

    How many images each synset has is not known here, so in train only whole synsets can be missed.
    """
    names = [name for batch in batches for name in batch.names.tolist()]
    if split == "train":
        synsets = {name.partition(b"_")[0].decode() for name in names}
        return len(names), _enumeration([wnid for wnid in labels.synsets() if wnid not in synsets])
    there = set(names)
    stem = {"validation": "val", "test": "test"}[split]
    wanted = (
        f"ILSVRC2012_{stem}_{number:08}.JPEG" for number in range(1, labels.IMAGES[split] + 1)
    )
    return len(names), _enumeration([name for name in wanted if name.encode() not in there])


def _enumeration(names: Sequence[str]) -> str:
    first = ", ".join(names[:_NAMED])
    return f"{first} and {len(names) - _NAMED:,} more" if len(names) > _NAMED else first


def _sha256(source: Source, progress: Progress) -> str:
    """Checksum of a whole archive.

    SHA-256, because processors have instructions for it: 1.9 GB/s where MD5 makes 0.8.
    """
    digest = hashlib.sha256()
    buffers = (bytearray(_READ_BYTES), bytearray(_READ_BYTES))

    def read(offset: int) -> memoryview:
        size = min(_READ_BYTES, source.size - offset)
        part = memoryview(buffers[offset // _READ_BYTES % 2])[:size]
        archive.will_read(offset + size, 2 * _READ_BYTES)
        archive.read_into(offset, part)
        return part

    # A thread fills one buffer while the other one is hashed, outside of Python's lock.
    with archives.opened(source) as archive, ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0)
        for offset in range(0, source.size, _READ_BYTES):
            part = coming.result()
            if offset + len(part) < source.size:
                coming = reader.submit(read, offset + len(part))
            digest.update(part)
            progress("checksum", offset + len(part))
    return digest.hexdigest()
