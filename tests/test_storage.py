"""Exact ranged reads, files that are there whole or not at all, and who is writing one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_imagenet import storage
from beam_imagenet.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CONTENT = bytes(range(256)) * 5


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive.tar"
    path.write_bytes(CONTENT)
    return path


def whole_files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_any_range_reads_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("ranges") / "archive.tar"
    path.write_bytes(CONTENT)

    @given(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT)))
    @settings(deadline=None, max_examples=50)
    def read(start: int, stop: int) -> None:
        start, stop = sorted((start, stop))
        assert file.read(start, stop - start) == CONTENT[start:stop]

    with storage.ArchiveFile(str(path)) as file:
        read()


def test_read_into_fills_the_buffer_and_no_byte_beside_it(archive: Path) -> None:
    buffer = bytearray(b"." * 10)
    with storage.ArchiveFile(str(archive)) as file:
        file.read_into(100, memoryview(buffer)[2:8])
    assert bytes(buffer) == b".." + CONTENT[100:106] + b".."


def test_a_read_past_the_end_is_an_error_with_path_and_byte(archive: Path) -> None:
    expected = rf"^{re.escape(str(archive))} ends at byte 1,280, where 1 more bytes were to be read"
    with storage.ArchiveFile(str(archive)) as file:
        with pytest.raises(StorageError, match=expected):
            file.read(1000, 281)
        with pytest.raises(StorageError, match="ends at byte 5,000"):
            file.read(5000, 1)


def test_an_archive_that_shrinks_while_it_is_read_is_an_error(archive: Path) -> None:
    with storage.ArchiveFile(str(archive)) as file:
        assert file.read(1000, 280) == CONTENT[1000:]
        os.truncate(archive, 1024)
        with pytest.raises(StorageError, match="ends at byte 1,024, where 256 more bytes"):
            file.read(1000, 280)


def test_an_archive_is_closed_with_its_block(archive: Path) -> None:
    with storage.ArchiveFile(str(archive)) as file:
        pass
    with pytest.raises(StorageError, match="cannot be read at byte 0: Bad file descriptor"):
        file.read(0, 1)


def test_a_missing_archive_is_told_by_its_path(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.tar")
    with pytest.raises(
        StorageError, match=rf"^{re.escape(missing)} cannot be opened: No such file"
    ):
        storage.ArchiveFile(missing)
    with pytest.raises(StorageError, match=rf"^{re.escape(missing)} cannot be read: No such file"):
        storage.identity(missing)


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    with (
        storage.ArchiveFile(str(tmp_path)) as file,
        pytest.raises(StorageError, match="cannot be read at byte 7: Is a directory"),
    ):
        file.read(7, 1)


def test_an_archives_identity_is_its_size_and_time(archive: Path) -> None:
    found = storage.identity(str(archive))
    assert found == (len(CONTENT), archive.stat().st_mtime_ns)
    with storage.ArchiveFile(str(archive), expected=found) as file:
        assert file.read(0, 3) == CONTENT[:3]


@pytest.mark.parametrize("change", ["size", "time"])
def test_an_archive_that_is_another_one_than_expected_is_refused(
    archive: Path, change: str
) -> None:
    found = storage.identity(str(archive))
    if change == "size":
        archive.write_bytes(CONTENT[1:])
        os.utime(archive, ns=(0, found.modified))
    else:
        os.utime(archive, ns=(0, found.modified + 1))
    with pytest.raises(StorageError, match=rf"^{re.escape(str(archive))} changed during the run"):
        storage.ArchiveFile(str(archive), expected=found)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_a_whole_file_appears_when_it_is_published(folder: Path, scratch: Path) -> None:
    path = folder / "shard"
    with storage.WholeFile(path, scratch=scratch) as whole:
        whole.write(b"first")
        whole.write(memoryview(b", second"))
        assert not path.exists()
        whole.publish()
    assert whole_files(folder) == {"shard": b"first, second"}
    assert whole_files(scratch) == {}


def test_a_whole_file_replaces_the_old_one_at_once(folder: Path, scratch: Path) -> None:
    path = folder / "shard"
    path.write_bytes(b"a longer old file")
    with storage.WholeFile(path, scratch=scratch) as whole:
        whole.write(b"new")
        assert path.read_bytes() == b"a longer old file"
        whole.publish()
    assert whole_files(folder) == {"shard": b"new"}


@pytest.mark.parametrize("flush", [True, False])
def test_what_is_written_with_flush_is_on_the_disk_before_it_is_there(
    folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, flush: bool
) -> None:
    path = folder / "shard"
    flushed: list[tuple[int, bool]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    storage.write_file(path, b"x", scratch=scratch, flush=flush)
    inodes = [(path.stat().st_ino, False), (folder.stat().st_ino, True)]
    assert flushed == (inodes if flush else [])


@pytest.mark.parametrize("error", [ValueError("7"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_block_that_fails_leaves_all_as_it_was(
    folder: Path, scratch: Path, error: BaseException, old: bytes | None
) -> None:
    path = folder / "shard"
    if old is not None:
        path.write_bytes(old)
    before = whole_files(folder)

    def write_a_part() -> None:
        with storage.WholeFile(path, scratch=scratch) as whole:
            whole.write(b"a part")
            raise error

    with pytest.raises(type(error)):
        write_a_part()
    assert whole_files(folder) == before
    assert whole_files(scratch) == {}


@contextlib.contextmanager
def tight() -> Iterator[None]:
    """A limit of 1,000 bytes a file: what a full disk is, for a process without a disk to fill."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:  # before pytest writes of the test to a file
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_without_room_is_told_by_its_path(folder: Path, scratch: Path) -> None:
    path = folder / "shard"
    expected = rf"^{re.escape(str(path))} cannot be written: File too large\. Make room"
    with tight(), pytest.raises(StorageError, match=expected):
        storage.write_file(path, CONTENT, scratch=scratch)
    assert whole_files(folder) == whole_files(scratch) == {}


def test_writers_of_the_same_file_do_not_disturb_each_other(folder: Path, scratch: Path) -> None:
    path = folder / "shard"
    with storage.WholeFile(path, scratch=scratch) as first:
        first.write(b"of a ")
        with storage.WholeFile(path, scratch=scratch) as second:
            second.write(b"of another worker")
            second.publish()
        assert path.read_bytes() == b"of another worker"
        first.write(b"worker")
        first.publish()
    assert whole_files(folder) == {"shard": b"of a worker"}


@pytest.mark.parametrize("place", ["folder", "scratch"])
def test_a_file_in_a_missing_folder_cannot_be_written(
    folder: Path, scratch: Path, place: str
) -> None:
    path = folder / "shard"
    {"folder": folder, "scratch": scratch}[place].rmdir()
    with pytest.raises(StorageError, match=rf"^{re.escape(str(path))} cannot be written: No such"):
        storage.write_file(path, b"x", scratch=scratch)


def test_a_folder_is_not_replaced_by_a_file(folder: Path, scratch: Path) -> None:
    with pytest.raises(StorageError, match="Is a directory"):
        storage.write_file(folder, b"x", scratch=scratch)
    with (
        storage.WholeFile(folder, scratch=scratch) as whole,
        pytest.raises(StorageError, match="cannot be written: Is a directory"),
    ):
        whole.publish()
    assert folder.is_dir()
    assert whole_files(scratch) == {}


@pytest.mark.parametrize("content", [b"", b"x", CONTENT * 1000])
def test_write_file_writes_it_all(folder: Path, scratch: Path, content: bytes) -> None:
    storage.write_file(folder / "file", b"old", scratch=scratch)
    storage.write_file(folder / "file", content, scratch=scratch, flush=True)
    assert whole_files(folder) == {"file": content}


def test_a_small_file_that_is_there_with_this_content_is_not_written_again(
    folder: Path, scratch: Path
) -> None:
    path = folder / "file"
    storage.write_file(path, b"same", scratch=scratch)
    before = path.stat()
    storage.write_file(path, b"same", scratch=scratch, flush=True)
    assert path.stat() == before


class Grudging(io.FileIO):
    """A file whose `write` takes seven bytes at most, as one on a slow network may."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Takes the start of `data`."""
        return super().write(bytes(data)[:7])


def test_writing_goes_on_where_a_write_took_a_part(
    folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grudging(path: Path, mode: str, buffering: int) -> Grudging:
        return Grudging(path, mode)

    monkeypatch.setattr(storage, "open", grudging, raising=False)
    storage.write_file(folder / "file", CONTENT, scratch=scratch)
    assert whole_files(folder) == {"file": CONTENT}


def test_what_is_not_there_is_no_error_to_look_at(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert storage.read_file(missing) is None
    assert storage.size_if_there(missing) is None
    assert storage.total_size(missing) == 0
    assert storage.list_folder(missing) == []
    storage.remove(missing)


def test_what_cannot_be_looked_at_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "x"
    for look in (storage.read_file, storage.size_if_there, storage.list_folder):
        with pytest.raises(StorageError, match=rf"^{re.escape(str(below))} cannot be read: Not a"):
            look(below)
    with pytest.raises(StorageError, match="cannot be removed: Not a directory"):
        storage.remove(below)


def test_sizes_of_folders_are_those_of_the_files_in_them(folder: Path) -> None:
    (folder / "a").write_bytes(b"123")
    (folder / "b").mkdir()
    (folder / "b" / "c").write_bytes(b"4567")
    assert storage.total_size(folder) == 7
    assert storage.size_if_there(folder / "a") == storage.total_size(folder / "a") == 3


def test_remove_takes_a_link_and_not_what_it_points_to(tmp_path: Path, folder: Path) -> None:
    (folder / "file").touch()
    (tmp_path / "link").symlink_to(folder)
    storage.remove(tmp_path / "link")
    assert whole_files(folder) == {"file": b""}
    storage.remove(folder)
    assert not folder.exists()


def test_one_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    inside: list[int] = []
    most = 0

    def enter(number: int) -> None:
        nonlocal most
        with storage.locked(tmp_path / "lock"):
            inside.append(number)
            most = max(most, len(inside))
            os.sched_yield()
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(200)))
    assert most == 1


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(
            StorageError, match=r"lock cannot be locked: .* needs a file system with lock"
        ),
        storage.locked(tmp_path / "lock"),
    ):
        pytest.fail("it was locked")


def test_folders_are_made_with_those_above_them(tmp_path: Path) -> None:
    for _ in range(2):
        storage.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"^The folder .*file/c cannot be made: Not a directory"):
        storage.make_folder(tmp_path / "file" / "c")


def test_a_path_below_a_file_is_a_storage_error(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        storage.write_file(tmp_path / "file" / "x", b"", scratch=scratch)


def test_a_name_too_long_is_a_storage_error(folder: Path, scratch: Path) -> None:
    with pytest.raises(StorageError):
        storage.write_file(folder / ("x" * 300), b"", scratch=scratch)


def test_an_error_without_a_number_is_told(
    folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, mode: str, buffering: int) -> io.BytesIO:
        raise OSError("broken data stream")

    monkeypatch.setattr(storage, "open", broken, raising=False)
    with pytest.raises(StorageError, match="cannot be written: broken data stream"):
        storage.write_file(folder / "x", b"", scratch=scratch)
