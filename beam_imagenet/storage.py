"""Exact ranged reads of archives and whole-file writes of results, on local file systems.

The one place that touches files. Knows nothing of tars, images or Beam.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from beam_imagenet.errors import StorageError


class ArchiveFile:
    """An archive open for reading at any offset. Use it in a `with` statement."""

    def __init__(self, path: str) -> None:
        """Opens the file.

        Raises:
            StorageError: The file cannot be opened.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be opened: {error.strerror}. Every worker has to be able to read it."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def will_read(self, offset: int, size: int) -> None:
        """Tells the kernel that this range is read soon, so that the disk starts on it now."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`.

        Raises:
            StorageError: The file ends before, or reading fails.
        """
        buffer = bytearray(size)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` with the bytes at `offset`.

        Raises:
            StorageError: The file ends before, or reading fails.
        """
        while buffer:
            try:
                count = os.preadv(self._descriptor, (buffer,), offset)
            except OSError as error:
                raise StorageError(
                    f"{self.path} cannot be read at byte {offset:,}: {error.strerror}."
                ) from error
            if count == len(buffer):
                return
            if count == 0:
                raise StorageError(
                    f"{self.path} ends at byte {offset:,}, where {len(buffer):,} more bytes were to be "
                    "read: it became shorter during the run. Run again on an archive that is complete."
                )
            buffer, offset = buffer[count:], offset + count


def file_size(path: str) -> int:
    """Bytes of a file.

    Raises:
        StorageError: There is no such file.
    """
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends, or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            with open(temporary, "xb", buffering=0) as file:
                yield file
                _start_write_out(file)
            os.replace(temporary, path)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be written: {error.strerror or error}. Make room or give it another "
                "--data_dir, then run the same command again."
            ) from error
    finally:
        with contextlib.suppress(OSError):  # where it cannot be removed, it could not be written
            temporary.unlink(missing_ok=True)


def _start_write_out(file: BinaryIO) -> None:
    """Starts the disk on a file that is complete, while the next one is being written.

    Linux writes out dirty pages when they are said not to be needed, and keeps those it has not
    written yet. It takes as long as the disk does, hence the thread; nothing waits for it.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.dup(file.fileno())

    def advise() -> None:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

    threading.Thread(target=advise, name="write_out", daemon=True).start()


def write_file(path: Path, content: bytes) -> None:
    """Writes a whole file, replacing one that is there.

    Raises:
        StorageError: The file cannot be written.
    """
    with whole_file(path) as file:
        write_all(file, memoryview(content))


def write_all(file: BinaryIO, data: memoryview) -> None:
    """Writes all of `data` to an unbuffered file, whose `write` may take a part of it."""
    while data:
        data = data[file.write(data) :]


def lock_folder(path: Path) -> bool:
    """Locks a folder for as long as this process lives; whether nobody else holds the lock.

    Raises:
        StorageError: The folder cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(f"{path} cannot be locked: {error.strerror}.") from error
    return True


def make_folder(path: Path) -> None:
    """Makes a folder and those above it.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {path} cannot be made: {error.strerror}. Choose another --data_dir."
        ) from error
