"""Exact ranged reads of archives and whole-file writes of results, on local file systems.

The one place that touches files. Knows nothing of tars, images or Beam.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from beam_imagenet.errors import StorageError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Identity(NamedTuple):
    """What tells that a file is still the same one: its size, and when it was last changed in ns."""

    size: int
    modified: int


class ArchiveFile:
    """An archive open for reading at any offset. Use it in a `with` statement."""

    def __init__(self, path: str, *, expected: Identity | None = None) -> None:
        """Opens the file.

        Args:
            path: The file.
            expected: What it has to be, or None if any will do.

        Raises:
            StorageError: The file cannot be opened, or is another one than expected.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be opened: {error.strerror}. Every worker has to be able to read it."
            ) from error
        self._expected = expected
        try:
            self.require_unchanged()
        except StorageError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def require_unchanged(self) -> None:
        """Makes sure that what was read is of the file that was expected.

        Raises:
            StorageError: The file is another one by now.
        """
        found = _identity_of(os.fstat(self._descriptor))
        if self._expected is not None and found != self._expected:
            how = (
                f"it had {self._expected.size:,} bytes when the run began and has {found.size:,} now"
                if found.size != self._expected.size
                else "it was written to after the run began"
            )
            raise StorageError(
                f"{self.path} changed during the run: {how}. Run again when it is complete."
            )

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


def identity(path: str) -> Identity:
    """What tells that a file is still the same one.

    Raises:
        StorageError: There is no such file.
    """
    try:
        return _identity_of(os.stat(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


def _identity_of(status: os.stat_result) -> Identity:
    return Identity(size=status.st_size, modified=status.st_mtime_ns)


class WholeFile:
    """A file that appears under its name when it is published, whole and on the disk, or never.

    Until then it lies in a folder for such files, locked, so that `sweep` can tell it from what a killed
    process left behind. Use it in a `with` statement, or end it by `publish` or `discard`.
    """

    def __init__(self, path: Path, *, scratch: Path) -> None:
        """Starts the file.

        Args:
            path: Where it will be.
            scratch: The folder that it lies in until then, on the same file system.

        Raises:
            StorageError: It cannot be written.
        """
        self._path = path
        with _writing(path):
            while True:
                self._temporary = scratch / f"{uuid.uuid4().hex}.tmp"
                self._file = open(self._temporary, "xb", buffering=0)  # noqa: SIM115
                with contextlib.suppress(OSError):  # without locks nothing is swept either
                    fcntl.flock(self._file, fcntl.LOCK_SH)
                if os.fstat(self._file.fileno()).st_nlink:
                    break
                self._file.close()  # it was swept away before it was locked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, data: memoryview | bytes) -> None:
        """Writes all of `data`.

        Raises:
            StorageError: It cannot be written.
        """
        data = memoryview(data)
        with _writing(self._path):
            while data:
                data = data[self._file.write(data) :]

    def flush(self) -> None:
        """Puts its bytes on the disk; without, a loss of power may empty a file that is published.

        Raises:
            StorageError: The disk failed.
        """
        with _writing(self._path):
            descriptor = self._file.fileno()
            if hasattr(os, "posix_fadvise"):
                # Linux writes out what is said not to be needed, without a lock on the journal, where
                # fsync alone makes all other writers wait: a quarter of the time of a job.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.fsync(descriptor)

    def publish(self) -> None:
        """Puts the file in its place, replacing one that is there.

        Raises:
            StorageError: It cannot be written; then it is discarded.
        """
        try:
            with _writing(self._path):
                os.replace(self._temporary, self._path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Removes what was written and not published; again, it does nothing."""
        if not self._file.closed:
            # Where it cannot be removed, it could not be written.
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            self._file.close()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "Make room" if error.errno in _NO_ROOM else "Make it writable"
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. {remedy} or choose another --data_dir, "
            "then run the same command again."
        ) from error


def write_file(path: Path, content: bytes, *, scratch: Path, flush: bool = False) -> None:
    """Writes a small file, whole or not at all, unless it is there with this content.

    Args:
        path: Where it goes.
        content: Its bytes.
        scratch: As in `WholeFile`.
        flush: Whether it is on the disk afterwards, and not only in the system's memory.

    Raises:
        StorageError: The file cannot be written.
    """
    if read_file(path) == content:
        if flush:
            _flush(path)
    else:
        with WholeFile(path, scratch=scratch) as whole:
            whole.write(content)
            if flush:
                whole.flush()
            whole.publish()
    if flush:
        flush_folder(path.parent)


def read_file(path: Path) -> bytes | None:
    """The bytes of a small file, or None if there is none.

    Raises:
        StorageError: It is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


def size_if_there(path: Path) -> int | None:
    """Bytes of a file, or None if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


def total_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(map(total_size, list_folder(path)))
    return size_if_there(path) or 0


def list_folder(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing if there is no such folder."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror}.") from error


def flush_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk; their bytes are `WholeFile.publish`'s.

    Raises:
        StorageError: The disk failed.
    """
    _flush(folder)


def _flush(path: Path) -> None:
    with _writing(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock for a moment; it ends with the process that holds it, however that ends.

    Raises:
        StorageError: The file system has no locks, or the file cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with _writing(path):
            file = stack.enter_context(open(path, "ab"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be locked: {error.strerror or error}. Publishing a dataset needs a file "
                "system with locks (on NFS: version 4, or mounted with local_lock=flock)."
            ) from error
        yield


def abandoned(scratch: Path) -> list[Path]:
    """The files of `WholeFile`s whose process has ended without a word."""
    return [path for path in _unfinished(scratch) if not _is_held(path, remove=False)]


def is_in_use(scratch: Path) -> bool:
    """Whether a process is writing a `WholeFile` at this moment."""
    return any(_is_held(path, remove=False) for path in _unfinished(scratch))


def sweep(scratch: Path) -> None:
    """Removes the files that processes which were killed left in `scratch`.

    Raises:
        StorageError: One cannot be removed.
    """
    for path in _unfinished(scratch):
        _is_held(path, remove=True)


def _unfinished(scratch: Path) -> list[Path]:
    return [path for path in list_folder(scratch) if path.suffix == ".tmp"]


def _is_held(path: Path, *, remove: bool) -> bool:
    """Whether somebody is writing the file; if nobody is, it can be removed before anybody does."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return True  # it has been published by now
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held by its writer, or there are no locks here to tell
            return True
        if remove:
            with _writing(path):
                path.unlink(missing_ok=True)
    return False


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it; one that is not there is removed already.

    Raises:
        StorageError: It cannot be removed.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:  # somebody else removes it at the same time
        return
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error.strerror}.") from error


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, and puts the names of new ones on the disk.

    Raises:
        StorageError: It cannot be made.
    """
    new = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {path} cannot be made: {error.strerror}. Choose another --data_dir."
        ) from error
    for folder in new:
        flush_folder(folder.parent)
