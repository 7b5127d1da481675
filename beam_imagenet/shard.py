"""One shard: its members' bytes from the archive into a TFRecord file.

Knows the task, the archive and the dataset's folder. Nothing of Beam, of other shards, or of how the
task came about.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np

from beam_imagenet import checks, images, layout, records, storage, tfrecord
from beam_imagenet.errors import ImageError, quoted
from beam_imagenet.model import ColorFix, Finding, Job, ShardResult, ShardTask
from beam_imagenet.plan import names_digest
from beam_imagenet.storage import ArchiveFile, WholeFile

_FINISHING = 3  # shards that the disk works on at a time; with one it is idle between them
_AHEAD = 128  # members, 14 MB of photographs: enough for a disk to work on
_Row: TypeAlias = tuple[bytes, int, int, int]
"""Name, offset, size and label of a member."""

_BUFFER_BYTES = 256 << 10  # fits a core's cache, between reading, checksum and writing


class ShardWriter:
    """Writes shards one after the other; the disk finishes some while the next is being written.

    A shard that is there already, with a record that serves the job, is not written again. `finish` has
    to be called at the end: a shard is in its place only then.
    """

    def __init__(self, job: Job) -> None:
        """Makes a writer for the shards of `job`."""
        self._job = job
        self._dataset = Path(job.dataset_dir)
        self._finishing = _Background()

    def write(self, task: ShardTask, archive: ArchiveFile) -> ShardResult:
        """Writes a shard, or finds it written.

        Args:
            task: What to write.
            archive: The open archive of the task's split.

        Raises:
            ImageError: A member is no image, or cannot be converted, and the job stops at that.
            StorageError: Reading or writing failed; maybe of the shard before.
        """
        started = time.monotonic()
        digest = names_digest(task.names.tolist())
        if (kept := self._find(task, digest)) is not None:
            return dataclasses.replace(kept, kept=True)
        path = self._dataset / task.source.folder / task.shard
        whole = WholeFile(path, scratch=layout.scratch(self._dataset))
        try:
            content = _ShardContent(task, archive, whole, job=self._job)
            content.write()
            archive.require_unchanged()
            result = ShardResult(
                split=task.source.split,
                shard=task.shard,
                num_examples=content.num_examples,
                num_bytes=content.num_bytes,
                file_bytes=content.num_bytes + content.num_examples * tfrecord.FRAME_BYTES,
                names_digest=names_digest(content.names),
                fixes=tuple(content.fixes),
                level=self._job.checks.level,
                bad=tuple(content.bad),
                suspect=tuple(content.suspect),
                seconds=time.monotonic() - started,
            )
            self._finishing.run(lambda: self._publish(whole, task, result))
        except BaseException:
            whole.discard()
            raise
        return result

    def finish(self) -> None:
        """Waits until all shards are in their places and on the disk.

        Raises:
            StorageError: One could not be.
        """
        self._finishing.end()

    def _find(self, task: ShardTask, digest: str) -> ShardResult | None:
        return records.find(
            task.source,
            task.shard,
            dataset=self._dataset,
            checks=self._job.checks,
            names_digest=digest,
        )

    def _publish(self, whole: WholeFile, task: ShardTask, result: ShardResult) -> None:
        with whole:
            whole.flush()
            # Locked, so that no other run takes the place over between the look and the deed.
            with storage.locked(layout.lock(self._dataset)):
                if self._find(task, result.names_digest) is not None:
                    return  # another attempt at the same bundle was faster
                layout.require_ours(self._dataset, task.source)
                whole.publish()
                records.keep(result, task.source, dataset=self._dataset)


class _Background:
    """Does a few things beside its caller, who waits for the oldest when there are more."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_FINISHING, thread_name_prefix="finish_shard")
        self._pending: collections.deque[Future[None]] = collections.deque()

    def run(self, work: Callable[[], None]) -> None:
        if len(self._pending) == _FINISHING:
            self._pending.popleft().result()
        self._pending.append(self._threads.submit(work))

    def end(self) -> None:
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._threads.shutdown()


class _ShardContent:
    """The records of one shard while they are written, and what is noticed of its images."""

    def __init__(
        self, task: ShardTask, archive: ArchiveFile, whole: WholeFile, *, job: Job
    ) -> None:
        self._task = task
        self._archive = archive
        self._job = job
        self._records = _RecordWriter(whole)
        self.names: list[bytes] = []
        self.num_examples = 0
        self.num_bytes = 0
        self.fixes: list[ColorFix] = []
        self.bad: list[Finding] = []
        self.suspect: list[Finding] = []

    def write(self) -> None:
        """Writes all records."""
        task = self._task
        columns = (task.names, task.offsets, task.sizes, task.labels)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        for row in _announced(rows, self._archive):
            name, offset, size, label = row
            prefix = tfrecord.example_prefix(name, image_size=size, label=label)
            image = self._records.reserve(prefix, size)
            self._archive.read_into(offset, image)
            self.names.append(name)
            try:
                self._check_and_fix(row, image)
            except ImageError as error:
                self.bad.append(Finding(file_name=name.decode(), reason=str(error)))
                if not self._keeps(row, image, error):
                    continue
            self.num_bytes += self._records.commit(tfrecord.example_suffix(label))
            self.num_examples += 1
        self._records.flush()

    def _check_and_fix(self, row: _Row, image: memoryview) -> None:
        """Raises ImageError if the image is bad; then the record holds it as it was."""
        name, _, _, label = row
        asked = self._job.checks
        reason = None
        if asked.level == "none":
            kind = _fix_of_unchecked(image)
        else:
            facts = images.probe(image)
            kind = facts.needs_fix
            reason = checks.suspicion(image, facts, level=asked.level)
        if reason is not None and asked.strict:
            raise ImageError(reason)
        if kind is not None:
            fixed = images.to_rgb_jpeg(bytes(image))
            prefix = tfrecord.example_prefix(name, image_size=len(fixed), label=label)
            self._records.reserve(prefix, len(fixed))[:] = fixed
            self.fixes.append(ColorFix(file_name=name.decode(), kind=kind))
        if reason is not None:
            self.suspect.append(Finding(file_name=name.decode(), reason=reason))

    def _keeps(self, row: _Row, image: memoryview, error: ImageError) -> bool:
        """Does with a bad image as the job says; whether it stays in the shard."""
        asked = self._job.checks
        if asked.keeps_bad:
            return True
        name, offset, size, _ = row
        where = (
            f"{self._archive.path}: member {quoted(name)} ({size:,} bytes at byte {offset:,}) is a bad "
            f"image: {error}."
        )
        if asked.on_bad_image == "fail":
            raise ImageError(
                f"{where} Fetch the archive again if its checksum differs from the official one (inspect "
                "--full tells), or go on without the image: --on_bad_image=quarantine leaves it out."
            ) from error
        self._quarantine(name.decode(), bytes(image), where)
        if len(self.bad) > asked.max_bad_images:
            raise ImageError(
                f"{where} It is number {len(self.bad):,} in one shard, which is more than "
                f"--max_bad_images={asked.max_bad_images} for the whole dataset, so nothing is published. "
                "Fetch the archive again, or allow more."
            ) from error
        return False

    def _quarantine(self, name: str, image: bytes, reason: str) -> None:
        dataset = Path(self._job.dataset_dir)
        path = layout.quarantine(dataset, self._task.source) / name
        storage.make_folder(path.parent)
        scratch = layout.scratch(dataset)
        storage.write_file(path, image, scratch=scratch)
        reason_path = path.with_name(f"{path.name}.reason.txt")
        storage.write_file(reason_path, f"{reason}\n".encode(), scratch=scratch)


def _fix_of_unchecked(image: memoryview) -> str | None:
    try:
        return images.probe(image).needs_fix
    except ImageError:
        return None  # whoever asks for no checks gets it as it is


def _announced(rows: list[_Row], archive: ArchiveFile) -> Iterator[_Row]:
    """Yields the rows, each of which the kernel was told of some rows before."""
    for start in range(-_AHEAD, len(rows), _AHEAD):
        for _, offset, size, _ in rows[start + _AHEAD : start + 2 * _AHEAD]:
            archive.will_read(offset, size)
        yield from rows[max(start, 0) : max(start + _AHEAD, 0)]


class _RecordWriter:
    """Frames records where they lie in one buffer, so that an image is copied once in and once out."""

    def __init__(self, whole: WholeFile) -> None:
        self._whole = whole
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
        self._whole.write(self._view[: self._used])
        self._used = 0
