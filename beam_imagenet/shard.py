"""One shard: its members' bytes from the archive into a TFRecord file.

Knows the task, the archive and the target folder. Nothing of Beam, of other shards, or of how the
task came about.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from beam_imagenet import images, tfrecord
from beam_imagenet.errors import ImageError, quoted
from beam_imagenet.model import ColorFix, ShardResult, ShardTask
from beam_imagenet.plan import names_digest
from beam_imagenet.storage import ArchiveFile, whole_file, write_all

_AHEAD = 128  # members, 14 MB of photographs: enough for a disk to work on
_Row: TypeAlias = tuple[bytes, int, int, int]
"""Name, offset, size and label of a member."""

_BUFFER_BYTES = 256 << 10  # fits a core's cache, between reading, checksum and writing


def write_shard(task: ShardTask, archive: ArchiveFile, folder: Path) -> ShardResult:
    """Writes a shard, whole or not at all; one of the same name is replaced.

    Args:
        task: What to write.
        archive: The open archive of the task's split.
        folder: Where the shard goes.

    Raises:
        ImageError: A member is no image, or cannot be converted.
        StorageError: Reading or writing failed.
    """
    started = time.monotonic()
    names: list[bytes] = []
    fixes: list[ColorFix] = []
    num_bytes = 0
    columns = (task.names, task.offsets, task.sizes, task.labels)
    with whole_file(folder / task.shard) as file:
        writer = _RecordWriter(file)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        for name, offset, size, label in _announced(rows, archive):
            prefix = tfrecord.example_prefix(name, image_size=size, label=label)
            image = writer.reserve(prefix, size)
            archive.read_into(offset, image)
            try:
                kind = images.probe(image).needs_fix
                if kind is not None:
                    fixed = images.to_rgb_jpeg(bytes(image))
                    prefix = tfrecord.example_prefix(name, image_size=len(fixed), label=label)
                    writer.reserve(prefix, len(fixed))[:] = fixed
                    fixes.append(ColorFix(file_name=name.decode(), kind=kind))
            except ImageError as error:
                raise ImageError(
                    f"{archive.path}: member {quoted(name)} ({size:,} bytes at byte {offset:,}) cannot "
                    f"be converted: {error}. Fetch the archive again if its checksum differs from the "
                    "official one, or remove the member from it."
                ) from error
            num_bytes += writer.commit(tfrecord.example_suffix(label))
            names.append(name)
        writer.flush()
    return ShardResult(
        split=task.source.split,
        shard=task.shard,
        num_examples=len(names),
        num_bytes=num_bytes,
        names_digest=names_digest(names),
        fixes=tuple(fixes),
        seconds=time.monotonic() - started,
    )


def _announced(rows: list[_Row], archive: ArchiveFile) -> Iterator[_Row]:
    """Yields the rows, each of which the kernel was told of some rows before."""
    for start in range(-_AHEAD, len(rows), _AHEAD):
        for _, offset, size, _ in rows[start + _AHEAD : start + 2 * _AHEAD]:
            archive.will_read(offset, size)
        yield from rows[max(start, 0) : max(start + _AHEAD, 0)]


class _RecordWriter:
    """Frames records where they lie in one buffer, so that an image is copied once in and once out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._array = np.empty(_BUFFER_BYTES, dtype=np.uint8)
        self._view = self._array.data
        self._used = 0
        self._image_stop = 0

    def reserve(self, prefix: bytes, image_size: int) -> memoryview:
        """Starts a record and gives the room for its image. Calling it again starts over."""
        start = self._used + tfrecord.HEADER_BYTES
        if start + len(prefix) + image_size + tfrecord.MAX_AFTER_IMAGE > len(self._view):
            self.flush()
            start = tfrecord.HEADER_BYTES
            needed = start + len(prefix) + image_size + tfrecord.MAX_AFTER_IMAGE
            if needed > len(self._view):
                self._array = np.empty(needed, dtype=np.uint8)
                self._view = self._array.data
        image_start = start + len(prefix)
        self._view[start:image_start] = prefix
        self._image_stop = image_start + image_size
        return self._view[image_start : self._image_stop]

    def commit(self, suffix: bytes) -> int:
        """Ends the record; its image is in place. Returns the bytes of its Example."""
        start = self._used + tfrecord.HEADER_BYTES
        stop = self._image_stop + len(suffix)
        self._view[self._image_stop : stop] = suffix
        self._view[self._used : start] = tfrecord.record_header(stop - start)
        # A numpy slice, because google-crc32c takes no writable memoryview.
        footer = tfrecord.record_footer(self._array[start:stop])
        self._used = stop + len(footer)
        self._view[stop : self._used] = footer
        return stop - start

    def flush(self) -> None:
        """Writes what was committed."""
        write_all(self._file, self._view[: self._used])
        self._used = 0
