"""Exact ranged reads, and files that are there whole or not at all."""

from __future__ import annotations

import io
import os
import re
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
        storage.file_size(missing)


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    with (
        storage.ArchiveFile(str(tmp_path)) as file,
        pytest.raises(StorageError, match="cannot be read at byte 7: Is a directory"),
    ):
        file.read(7, 1)


def test_file_size_is_in_bytes(archive: Path) -> None:
    assert storage.file_size(str(archive)) == len(CONTENT)


def test_a_whole_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    with storage.whole_file(path) as file:
        file.write(b"first")
        assert not path.exists()
        file.write(b", second")
        assert not path.exists()
    assert whole_files(tmp_path) == {"shard": b"first, second"}


def test_a_whole_file_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"a longer old file")
    with storage.whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"a longer old file"
    assert whole_files(tmp_path) == {"shard": b"new"}


@pytest.mark.parametrize(
    "error", [ValueError("7"), KeyboardInterrupt(), OSError(28, "No space left")]
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_block_that_fails_leaves_all_as_it_was(
    tmp_path: Path, error: BaseException, old: bytes | None
) -> None:
    path = tmp_path / "shard"
    if old is not None:
        path.write_bytes(old)
    before = whole_files(tmp_path)

    def write_a_part() -> None:
        with storage.whole_file(path) as file:
            file.write(b"a part")
            raise error

    with pytest.raises((type(error), StorageError)):
        write_a_part()
    assert whole_files(tmp_path) == before


def test_a_full_disk_is_told_by_the_path(tmp_path: Path) -> None:
    shard = re.escape(str(tmp_path / "shard"))
    expected = rf"^{shard} cannot be written: No space left on device\. Make room"
    with (
        pytest.raises(StorageError, match=expected),
        storage.whole_file(tmp_path / "shard"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert whole_files(tmp_path) == {}


def test_writers_of_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    with storage.whole_file(path) as first:
        first.write(b"of a ")
        with storage.whole_file(path) as second:
            second.write(b"of another worker")
        assert path.read_bytes() == b"of another worker"
        first.write(b"worker")
    assert whole_files(tmp_path) == {"shard": b"of a worker"}


def test_a_temporary_file_is_no_shard_to_a_reader(tmp_path: Path) -> None:
    name = "imagenet2012-train.tfrecord-00000-of-00001"
    with storage.whole_file(tmp_path / name):
        assert list(tmp_path.glob("imagenet2012-*")) == []
        [temporary] = tmp_path.iterdir()
        assert temporary.name.startswith(".")


def test_a_file_in_a_missing_folder_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "shard"
    with pytest.raises(StorageError, match=rf"^{re.escape(str(path))} cannot be written: No such"):
        storage.write_file(path, b"x")


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StorageError, match="cannot be written: Is a directory"):
        storage.write_file(folder, b"x")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("content", [b"", b"x", CONTENT * 1000])
def test_write_file_writes_it_all(tmp_path: Path, content: bytes) -> None:
    storage.write_file(tmp_path / "file", b"old")
    storage.write_file(tmp_path / "file", content)
    assert whole_files(tmp_path) == {"file": content}


class Grudging(io.BytesIO):
    """A file whose `write` takes seven bytes at most, as a full pipe does."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Takes the start of `data`."""
        return super().write(bytes(data)[:7])


def test_write_all_goes_on_where_a_write_took_a_part() -> None:
    file = Grudging()
    storage.write_all(file, memoryview(CONTENT))
    assert file.getvalue() == CONTENT


def test_folders_are_made_with_those_above_them(tmp_path: Path) -> None:
    for _ in range(2):
        storage.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"^The folder .*file/c cannot be made: Not a directory"):
        storage.make_folder(tmp_path / "file" / "c")


def test_a_path_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        storage.write_file(tmp_path / "file" / "x", b"")


def test_a_name_too_long_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        storage.write_file(tmp_path / ("x" * 300), b"")


def test_an_error_without_a_number_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught, storage.whole_file(tmp_path / "x"):
        raise OSError("broken data stream")
    assert "None" not in str(caught.value)
