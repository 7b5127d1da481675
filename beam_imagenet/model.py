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
        modified: When it was last changed, in nanoseconds since the epoch; it may not change any more.
        num_shards: Shards asked for, or None for TFDS's rule.
        fingerprint: What the split's bytes follow from (`fingerprint.py`); the same, the same shards.
        folder: Where its shards go, relative to the dataset's folder; "" is TFDS's own place.
    """

    split: str
    archive: str
    size: int
    modified: int
    num_shards: int | None = None
    fingerprint: str = ""
    folder: str = ""


CHECK_LEVELS = ("none", "header", "decode")
"""How closely images are looked at, from not at all to every pixel."""

ON_BAD_IMAGE = ("fail", "quarantine", "keep")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Checks:
    """How images are looked at, and what becomes of those that fail.

    Attributes:
        level: One of `CHECK_LEVELS`.
        on_bad_image: One of `ON_BAD_IMAGE`: stop at it, leave it out and keep it apart, or carry it over.
        max_bad_images: More than these, and a dataset that leaves them out is not published.
        strict: Whether a suspect image is a bad one.
    """

    level: str = "header"
    on_bad_image: str = "fail"
    max_bad_images: int = 100
    strict: bool = False

    @property
    def keeps_bad(self) -> bool:
        """Whether bad images are records of the dataset."""
        return self.on_bad_image == "keep"

    def covered_by(self, level: str) -> bool:
        """Whether what was checked at `level` was looked at closely enough."""
        return level in CHECK_LEVELS[CHECK_LEVELS.index(self.level) :]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that a worker has to know about the run; small, and the same in every stage.

    Attributes:
        dataset_dir: Where the dataset goes: DATA_DIR/imagenet2012/VERSION.
        version: TFDS dataset version, "5.1.0" or "5.0.0".
        keep_member_path: Whether `file_name` is the member's path in the archive, not its base name.
        checks: How images are checked.
        sources: One for each split that is written.
        seen: Digest of the `dataset_info.json` that the run found, "" if there was none; only that one
            is replaced.
    """

    dataset_dir: str
    version: str
    keep_member_path: bool
    checks: Checks
    sources: tuple[Source, ...]
    seen: str = ""


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
        suspicions: What is odd about the segment's tar, and no error.
    """

    source: Source
    start: int
    stop: int
    overhead: int
    names: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.uint32]
    labels: NDArray[np.int16]
    suspicions: tuple[str, ...] = ()


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
        suspicions: What is odd about its archive, and no error.
    """

    split: str
    num_classes: int
    shards: tuple[PlannedShard, ...]
    suspicions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ColorFix:
    """An image that was converted: its name, and what it was ("CMYK" or "PNG")."""

    file_name: str
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """An image that a check stumbled over, and why."""

    file_name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardResult:
    """What was written: fields as in `PlannedShard`, measured while writing.

    Attributes:
        split: Name of the split.
        shard: File name.
        num_examples: Records written.
        num_bytes: Bytes of the serialised examples as written, colour fixes included.
        file_bytes: Bytes of the file.
        names_digest: Digest of the names that were dealt with, images left out included.
        fixes: The images that were converted.
        level: The `Checks.level` that its images have passed.
        bad: The images that are none; left out or kept, as the job's checks say.
        suspect: The images that are odd, and kept.
        seconds: Time that the shard took its worker; of a kept one, when it was written.
        kept: Whether it was there already, from an earlier run or attempt.
    """

    split: str
    shard: str
    num_examples: int
    num_bytes: int
    file_bytes: int
    names_digest: str
    fixes: tuple[ColorFix, ...]
    level: str
    bad: tuple[Finding, ...]
    suspect: tuple[Finding, ...]
    seconds: float
    kept: bool = False

    @property
    def num_shards(self) -> int:
        """Shards of the split, as its name tells."""
        return int(self.shard.rpartition("-")[2])

    def serves(self, checks: Checks) -> bool:
        """Whether a shard of the same fingerprint may be kept by a job with these checks."""
        return checks.covered_by(self.level) and not (self.bad and checks.on_bad_image == "fail")


def shard_name(split: str, *, index: int, num_shards: int) -> str:
    """TFDS's name of a shard, e.g. `imagenet2012-train.tfrecord-00007-of-01024`."""
    return f"{DATASET_NAME}-{split}.tfrecord-{index:05d}-of-{num_shards:05d}"
