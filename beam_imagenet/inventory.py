"""Tar headers to members with names and labels: what there is to convert, and where it lies.

Knows ILSVRC-2012's layout: train is a tar of one tar a synset, validation and test are flat.
Reads headers only. Knows nothing of Beam, shards or images.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator

import numpy as np

from beam_imagenet import labels
from beam_imagenet.errors import ArchiveError
from beam_imagenet.model import MemberBatch, Segment, Source
from beam_imagenet.tar import Member, Readable, padded, shown, walk

_MAX_NAME_BYTES = 255
"""No file system stores a longer base name; the bound keeps the name column narrow."""

_MAX_IMAGE_BYTES = 1 << 30
"""A record holds its image whole, and so does the worker; ImageNet's largest has some 15 MB."""

_VALIDATION_NAME = re.compile(rb"ILSVRC2012_val_(\d{8})\.JPEG")
_TEST_NAME = re.compile(rb"ILSVRC2012_test_\d{8}\.JPEG")


def list_segments(source: Source, archive: Readable) -> Iterator[Segment]:
    """Yields the segments of an archive; together they cover each of its bytes once.

    Reads the 1,000 outer headers of a train archive, and nothing of a flat one.

    Raises:
        ArchiveError: The archive is damaged, or holds what ILSVRC-2012's does not.
    """
    if source.split != "train":
        yield Segment(
            source=source,
            start=0,
            stop=source.size,
            members_start=0,
            members_stop=source.size,
            wnid=None,
        )
        return
    seen: dict[str, int] = {}
    inner: Member | None = None
    start = 0
    for following in walk(archive, start=0, stop=source.size):
        if inner is not None:
            yield _inner_segment(source, inner, seen, start=start, stop=inner.stop)
            start = inner.stop
        inner = following
    if inner is None:
        raise ArchiveError(
            f"{source.archive} holds no synset archives (n01440764.tar and so on) up to its end at byte "
            f"{source.size:,}. Fetch it again, or say where the train archive is with --train."
        )
    yield _inner_segment(source, inner, seen, start=start, stop=source.size)


def _inner_segment(
    source: Source, inner: Member, seen: dict[str, int], *, start: int, stop: int
) -> Segment:
    """The segment of an inner archive; `seen` is where each synset's was so far."""
    wnid, extension = posixpath.splitext(inner.name.decode("utf-8", "replace"))
    wnid = posixpath.basename(wnid)
    if extension != ".tar" or wnid not in labels.label_of_synset():
        raise ArchiveError(
            f"{source.archive}: member {shown(inner.name)} at byte {inner.start:,} is not the archive "
            "of one of ILSVRC-2012's 1,000 synsets (n01440764.tar and so on). "
            "Is this the train archive of ILSVRC-2012, and not another year's or a repacked one?"
        )
    # Which of two is meant? To tar the second replaces the first, and a class must not be doubled.
    if seen.setdefault(wnid, inner.start) != inner.start:
        raise ArchiveError(
            f"{source.archive}: the archive of {wnid} is there twice, at bytes {seen[wnid]:,} and "
            f"{inner.start:,} ({shown(inner.name)}). Remove one, or fetch the official archive."
        )
    return Segment(
        source=source,
        start=start,
        stop=stop,
        members_start=inner.offset,
        members_stop=inner.offset + inner.size,
        wnid=wnid,
    )


def read_segment(segment: Segment, archive: Readable, *, keep_member_path: bool) -> MemberBatch:
    """Walks a segment's headers.

    Args:
        segment: What to read.
        archive: The open archive.
        keep_member_path: Whether `file_name` is the stored path, normalised, instead of its base name.

    Raises:
        ArchiveError: A header is damaged, a member's name tells no label, or a flat archive has none.
    """
    names: list[bytes] = []
    offsets: list[int] = []
    sizes: list[int] = []
    numbers: list[int] = []
    suspicions: list[str] = []
    label_of = _label_rule(segment)
    for member in _walk_segment(segment, archive, suspicions):
        base_name = _base_name(member)
        label = label_of(base_name)
        file_name = _kept_path(member.name) if keep_member_path else base_name
        if label is None:
            raise ArchiveError(_no_label(segment, member))
        if file_name is None or len(file_name) > _MAX_NAME_BYTES:
            raise ArchiveError(
                f"{archive.path}: member {shown(member.name)} at byte {member.start:,} has a path that "
                "cannot be a file_name (absolute, hidden, no UTF-8, or over 255 bytes). Without "
                "--file_name=member its base name is used."
            )
        if member.size > _MAX_IMAGE_BYTES:
            raise ArchiveError(
                f"{archive.path}: member {shown(file_name)} at byte {member.start:,} claims "
                f"{member.size:,} bytes, which no photograph has. Fetch the archive again."
            )
        names.append(file_name)
        offsets.append(member.offset)
        sizes.append(member.size)
        numbers.append(label)
    if not names:
        suspicions.append(_no_images(segment))
    data_bytes = sum(map(padded, sizes))
    return MemberBatch(
        source=segment.source,
        start=segment.start,
        stop=segment.stop,
        overhead=segment.stop - segment.start - data_bytes,
        names=np.array(names, dtype=np.bytes_),
        offsets=np.array(offsets, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.uint32),
        labels=np.array(numbers, dtype=np.int16),
        suspicions=tuple(suspicions),
    )


def require_start(source: Source, archive: Readable) -> None:
    """Checks that an archive begins as the split's does: its first member, and in train that one's first.

    Raises:
        ArchiveError: It does not, so `list_segments` or `read_segment` would fail as well.
    """
    segment = next(list_segments(source, archive))
    member = next(_walk_segment(segment, archive, []), None)
    if member is None:
        _no_images(segment)
    elif _label_rule(segment)(_base_name(member)) is None:
        raise ArchiveError(_no_label(segment, member))


def _walk_segment(segment: Segment, archive: Readable, suspicions: list[str]) -> Iterator[Member]:
    inner = f"{segment.wnid}.tar" if segment.wnid else None
    return walk(
        archive,
        start=segment.members_start,
        stop=segment.members_stop,
        inner=inner,
        suspicions=suspicions if inner else None,
    )


def _no_images(segment: Segment) -> str:
    """What there is to say of a synset without images.

    Raises:
        ArchiveError: It is a whole split.
    """
    source = segment.source
    if segment.wnid is not None:
        return f"{segment.wnid}.tar in {source.archive} (at byte {segment.members_start:,}) holds no images"
    raise ArchiveError(
        f"{source.archive} holds no images up to its end at byte {segment.stop:,}. Fetch it again, or say "
        f"where the {source.split} archive is with --{source.split}."
    )


def _base_name(member: Member) -> bytes:
    return member.name.rpartition(b"/")[2]


def _label_rule(segment: Segment) -> Callable[[bytes], int | None]:
    """What turns a member's base name into its label, or None where the name is none of the split's."""
    if segment.wnid is not None:
        label = labels.label_of_synset()[segment.wnid]
        matches_synset = re.compile(rb"%s_\d+\.JPEG" % segment.wnid.encode()).fullmatch
        return lambda name: label if matches_synset(name) else None
    if segment.source.split == "validation":
        return _validation_label
    return lambda name: labels.UNLABELLED if _TEST_NAME.fullmatch(name) else None


def _validation_label(name: bytes) -> int | None:
    match = _VALIDATION_NAME.fullmatch(name)
    number = int(match[1]) if match else 0
    known = labels.validation_labels()
    return known[number - 1] if 1 <= number <= len(known) else None


def _kept_path(stored: bytes) -> bytes | None:
    """TFDS's `file_name`: the stored path, normalised (tensorflow_datasets/core/download/extractor.py)."""
    path = posixpath.normpath(stored)
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if path.startswith((b".", b"/")) or b"\0" in path or b"\\" in path else path


def _no_label(segment: Segment, member: Member) -> str:
    expected = {
        "train": f"{segment.wnid}_NUMBER.JPEG",
        "validation": "ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG",
        "test": "ILSVRC2012_test_00000001.JPEG and so on",
    }[segment.source.split]
    inner = f" (in {segment.wnid}.tar)" if segment.wnid else ""
    return (
        f"{segment.source.archive}{inner}: member {shown(member.name)} at byte {member.start:,} has "
        f"no name of the {segment.source.split} split, {expected}, so it cannot be labelled. "
        "Remove it from the archive, or fetch the official one."
    )
