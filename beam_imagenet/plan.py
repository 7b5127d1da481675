"""Members to shards: order, shard count and boundaries, from tar headers alone.

The rules are TFDS's (tensorflow_datasets/core/{hashing,shuffle,utils/shard_utils}.py of 4.9.10), so
that the dataset is the one that its readers know. Pure: knows nothing of Beam, files or images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from beam_imagenet.errors import ArchiveError, ReconcileError, UsageError, quoted
from beam_imagenet.model import MemberBatch, PlannedShard, ShardTask, Source, SplitPlan, shard_name
from beam_imagenet.tar import BLOCK
from beam_imagenet.tfrecord import FRAME_BYTES, example_sizes

_MIN_SHARD_BYTES = 64 << 20
_MAX_SHARD_BYTES = 1 << 30
_CHUNK = 1 << 16  # names that are Python objects at the same time


def shard_count(*, num_bytes: int, num_examples: int) -> int:
    """TFDS's number of shards (`ShardConfig.calculate_number_shards`, precise sharding).

    Args:
        num_bytes: Bytes of all serialised examples, framing not included.
        num_examples: Examples in the split.
    """
    total = num_bytes + num_examples * FRAME_BYTES
    most = total // _MIN_SHARD_BYTES
    fewest = total // _MAX_SHARD_BYTES
    if fewest > 1024:
        count = -(-fewest // 1024) * 1024
        # TFDS goes on to the next multiple for as long as there are fewer examples than shards,
        # which never ends; over a terabyte in under 2,048 images is no photograph collection.
        return max(count, 2048)
    for exponent in range(10, 0, -1):
        count = 1 << exponent
        if fewest <= count <= most and num_examples >= count:
            return count
    return 1


def boundaries(*, num_examples: int, num_shards: int) -> list[int]:
    """Ends (exclusive) of the shards in the split's order, as `round` gives them (half to even)."""
    return [round(num_examples * index / num_shards) for index in range(1, num_shards + 1)]


def names_digest(names: Iterable[bytes]) -> str:
    """Digest of file names in record order; it tells whether a shard holds what was planned."""
    return hashlib.blake2b(b"\n".join(names), digest_size=16).hexdigest()


def plan_split(
    source: Source, batches: Iterable[MemberBatch]
) -> tuple[SplitPlan, Iterator[ShardTask]]:
    """Plans a split.

    The plan does not depend on the order of the batches, nor of the members in them.

    Args:
        source: The split's archive, as it was found before the job started.
        batches: All that its headers told; once.

    Returns:
        The plan in short, and its shards' tasks.

    Raises:
        ReconcileError: The batches do not account for each byte of the archive once.
        ArchiveError: No members, or two of the same name.
        UsageError: More shards were asked for than there are images.
    """
    batches = sorted(batches, key=lambda batch: (batch.start, batch.stop))
    _require_tiles(source, batches)
    names = np.concatenate([batch.names for batch in batches])
    num_examples = len(names)
    if num_examples == 0:
        raise ArchiveError(f"{source.archive} holds no images.")
    order, twins = _order(source.split, names)
    names = names[order]
    offsets = np.concatenate([batch.offsets for batch in batches])[order]
    sizes = np.concatenate([batch.sizes for batch in batches])[order]
    labels = np.concatenate([batch.labels for batch in batches])[order]
    if len(twins):
        first, second = sorted(int(offset) for offset in offsets[twins[0] : twins[0] + 2])
        name = quoted(names[twins[0]])
        raise ArchiveError(
            f"{source.archive}: the name {name} is there twice, with data at bytes {first:,} and "
            f"{second:,}. A split's file names must be unique; remove one from the archive."
        )
    record_sizes = example_sizes(
        name_sizes=np.strings.str_len(names), image_sizes=sizes, labels=labels
    )
    num_shards = source.num_shards or shard_count(
        num_bytes=int(record_sizes.sum()), num_examples=num_examples
    )
    if num_shards > num_examples:
        raise UsageError(
            f"--num_shards asks for {num_shards:,} shards of {source.split}, which has only "
            f"{num_examples:,} images. Ask for fewer."
        )
    stops = boundaries(num_examples=num_examples, num_shards=num_shards)
    ranges = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
    plan = SplitPlan(
        split=source.split,
        num_classes=int(np.unique(labels[labels >= 0]).size),
        shards=tuple(
            PlannedShard(
                shard=shard_name(source.split, index=index, num_shards=num_shards),
                num_examples=part.stop - part.start,
                num_bytes=int(record_sizes[part].sum()),
                names_digest=names_digest(names[part].tolist()),
            )
            for index, part in enumerate(ranges)
        ),
        suspicions=tuple(suspicion for batch in batches for suspicion in batch.suspicions),
    )
    tasks = (
        ShardTask(
            source=source,
            index=index,
            num_shards=num_shards,
            names=names[part],
            offsets=offsets[part],
            sizes=sizes[part],
            labels=labels[part],
        )
        for index, part in enumerate(ranges)
    )
    return plan, tasks


def _order(split: str, names: NDArray[np.bytes_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """TFDS's order, by md5(split + file_name) as a 128-bit integer.

    Returns:
        The names' positions in that order; and where in it a key is followed by the same key.
    """
    salted = hashlib.md5(split.encode(), usedforsecurity=False)
    digests = bytearray()
    for start in range(0, len(names), _CHUNK):
        for name in names[start : start + _CHUNK].tolist():
            key = salted.copy()
            key.update(name)
            digests += key.digest()
    keys = np.frombuffer(digests, dtype=">u8").reshape(-1, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    keys = keys[order]
    return order, np.flatnonzero((keys[1:] == keys[:-1]).all(axis=1))


def _require_tiles(source: Source, batches: list[MemberBatch]) -> None:
    """Checks that headers, members and padding cover each byte of the archive exactly once."""
    position = 0
    for batch in batches:
        if batch.start != position:
            _not_tiled(source, min(batch.start, position), max(batch.start, position))
        position = batch.stop
        rows = {len(batch.names), len(batch.offsets), len(batch.sizes), len(batch.labels)}
        if len(rows) != 1 or not _fills(batch):
            _not_tiled(source, batch.start, batch.stop)
    if position != source.size:
        _not_tiled(source, position, source.size)


def _fills(batch: MemberBatch) -> bool:
    """Whether members and overhead make up the batch's bytes, without an overlap."""
    data = -(-batch.sizes.astype(np.int64) // BLOCK) * BLOCK
    stops = batch.offsets + data
    return bool(
        int(data.sum()) + batch.overhead == batch.stop - batch.start
        and (stops[:-1] + BLOCK <= batch.offsets[1:]).all()
        and (not len(data) or (batch.offsets[0] >= batch.start and stops[-1] <= batch.stop))
    )


def _not_tiled(source: Source, start: int, stop: int) -> NoReturn:
    raise ReconcileError(
        f"{source.archive}: the headers that reached the plan do not account for bytes {start:,} to "
        f"{stop:,} exactly once, so images would be missing or doubled. No dataset was written. The "
        "runner lost or repeated work: run the same command again, and report it if it happens again."
    )
