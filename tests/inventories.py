"""What archives hold, as a conversion reads it: headers to batches, names and labels."""

from __future__ import annotations

from collections.abc import Sequence

from beam_imagenet.inventory import list_segments, read_segment, require_start
from beam_imagenet.model import MemberBatch, Segment, Source
from beam_imagenet.plan import plan_split
from beam_imagenet.storage import ArchiveFile

TENCH, GOLDFISH, TISSUE = "n01440764", "n01443537", "n15075141"
"""The synsets of labels 0, 1 and 999."""

TRAIN = [
    (f"{TISSUE}.tar", [(f"{TISSUE}_{number}.JPEG", b"t" * number) for number in (7, 0, 513)]),
    (f"{TENCH}.tar", [(f"{TENCH}_{number}.JPEG", b"f" * 512) for number in (10026, 1)]),
    (f"{GOLDFISH}.tar", []),
]
"""A train archive for `train_tar`, in no order, one synset of it without images."""


def validation_name(number: int) -> str:
    """The name of a validation image."""
    return f"ILSVRC2012_val_{number:08}.JPEG"


def segments_of(source: Source) -> list[Segment]:
    """The segments of an archive."""
    with ArchiveFile(source.archive) as archive:
        return list(list_segments(source, archive))


def read(source: Source, *, keep_member_path: bool = False) -> list[MemberBatch]:
    """The members of an archive, a batch a segment."""
    with ArchiveFile(source.archive) as archive:
        return [
            read_segment(segment, archive, keep_member_path=keep_member_path)
            for segment in list_segments(source, archive)
        ]


def require_start_of(source: Source) -> None:
    """Looks at the start of an archive alone."""
    with ArchiveFile(source.archive) as archive:
        require_start(source, archive)


def converted(source: Source) -> list[tuple[str, int]]:
    """Name and label of each record of the split, in name order."""
    _, tasks = plan_split(source, read(source))
    return sorted(
        (name.decode(), label)
        for task in tasks
        for name, label in zip(task.names.tolist(), task.labels.tolist(), strict=True)
    )


def rows(batches: Sequence[MemberBatch]) -> list[tuple[str, int]]:
    """Name and label of each member, in archive order."""
    return [
        (name.decode(), label)
        for batch in batches
        for name, label in zip(batch.names.tolist(), batch.labels.tolist(), strict=True)
    ]


def assert_covers_each_byte_once(source: Source, batches: Sequence[MemberBatch]) -> None:
    """Asserts that an archive's segments tile it, and that overhead is all but the images' blocks."""
    assert [batch.start for batch in batches] == [0, *(batch.stop for batch in batches[:-1])]
    assert batches[-1].stop == source.size
    for batch in batches:
        data = sum(-(-size // 512) * 512 for size in batch.sizes.tolist())
        assert batch.overhead == batch.stop - batch.start - data
