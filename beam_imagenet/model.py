"""The frozen values that travel between the stages of the job.

Knows nothing of Beam, files or images. A split's members travel as columns (numpy arrays), about
35 bytes an image: a Python object an image would cost ten times that, 1.3 million times.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

DATASET_NAME = "imagenet2012"
SPLITS = ("train", "validation", "test")

ARCHIVES = {
    "train": ("ILSVRC2012_img_train.tar",),
    "validation": ("ILSVRC2012_img_val.tar",),
    "test": ("ILSVRC2012_img_test.tar", "ILSVRC2012_img_test_v10102019.tar"),
}
"""The official names of a split's archive: TFDS's first, today's for test second."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One split's archive, as it was found before the job was built.

    Attributes:
        split: "train", "validation" or "test".
        archive: Path of the archive.
        size: Bytes of the archive; the headers have to account for each of them.
        num_shards: Shards asked for, or None for TFDS's rule.
    """

    split: str
    archive: str
    size: int
    num_shards: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that a worker has to know about the run; small, and the same in every stage.

    Attributes:
        run_id: Unique to the run, so that a launcher knows its own run's result.
        dataset_dir: Where the dataset goes: DATA_DIR/imagenet2012/VERSION.
        version: TFDS dataset version, "5.1.0" or "5.0.0".
        keep_member_path: Whether `file_name` is the member's path in the archive, not its base name.
        sources: One for each split of the dataset.
    """

    run_id: str
    dataset_dir: str
    version: str
    keep_member_path: bool
    sources: tuple[Source, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A stretch of an archive whose headers one worker walks: a synset's inner archive, or all of a flat one.

    Attributes:
        source: The archive that it is part of.
        start: First byte of the stretch, an inner archive's own header included.
        stop: End (exclusive) of the stretch, padding included; a split's segments tile its archive.
        members_start: Offset of the first member's header.
        members_stop: End of the tar that holds the members.
        wnid: The synset that all members belong to; None for validation and test.
    """

    source: Source
    start: int
    stop: int
    members_start: int
    members_stop: int
    wnid: str | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MemberBatch:
    """The members of one segment, in archive order.

    Attributes:
        source: The archive.
        start: First byte that this batch accounts for.
        stop: End (exclusive) of what it accounts for.
        overhead: Bytes between them that are no member's padded data: headers, directories, end marks.
        names: `file_name` of each member, UTF-8, NUL-padded (dtype "S").
        offsets: Absolute offset of each image in the archive, int64.
        sizes: Bytes of each image, uint32.
        labels: Label of each, int16; -1 in test.
    """

    source: Source
    start: int
    stop: int
    overhead: int
    names: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.uint32]
    labels: NDArray[np.int16]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShardTask:
    """One shard to write: its members in the order of its records. Columns as in `MemberBatch`."""

    source: Source
    index: int
    num_shards: int
    names: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.uint32]
    labels: NDArray[np.int16]

    @property
    def shard(self) -> str:
        """File name of the shard."""
        return shard_name(self.source.split, index=self.index, num_shards=self.num_shards)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """What the plan says of a shard.

    Attributes:
        shard: File name.
        num_examples: Records.
        num_bytes: Bytes of the serialised examples, before colour fixes.
        names_digest: `plan.names_digest` of the file names in record order.
    """

    shard: str
    num_examples: int
    num_bytes: int
    names_digest: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """A split's plan in short, which the written shards are held against.

    Attributes:
        split: Name of the split.
        num_classes: Distinct labels in it (0 in test).
        shards: One entry a shard, in order.
    """

    split: str
    num_classes: int
    shards: tuple[PlannedShard, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ColorFix:
    """An image that was converted: its name, and what it was ("CMYK" or "PNG")."""

    file_name: str
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardResult:
    """What was written: fields as in `PlannedShard`, measured while writing.

    Attributes:
        split: Name of the split.
        shard: File name.
        num_examples: Records written.
        num_bytes: Bytes of the serialised examples as written, colour fixes included.
        names_digest: Digest of the names that were framed.
        fixes: The images that were converted.
        seconds: Time that the shard took its worker.
    """

    split: str
    shard: str
    num_examples: int
    num_bytes: int
    names_digest: str
    fixes: tuple[ColorFix, ...]
    seconds: float


def shard_name(split: str, *, index: int, num_shards: int) -> str:
    """TFDS's name of a shard, e.g. `imagenet2012-train.tfrecord-00007-of-01024`."""
    return f"{DATASET_NAME}-{split}.tfrecord-{index:05d}-of-{num_shards:05d}"
