"""A disk that fills up, or cannot be written to, is told in one paragraph, and costs no work."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beam_imagenet import __main__
from tests import commands, disturbed
from tests.disturbed import Moment

pytestmark = pytest.mark.slow

OPTIONS = ("--num_shards=train:8,validation:4,test:4", "--direct_num_workers=2")
FULL = [
    (Moment(event="occupy: create", share=0.5), r"\.beam_imagenet/\w+\.claim"),
    (Moment(event="write shard: create", share=0), r"imagenet2012-\w+\.tfrecord-\d+-of-\d+"),
    (Moment(event="write shard: write", share=0.6), r"imagenet2012-\w+\.tfrecord-\d+-of-\d+"),
    (Moment(event="record: create", share=0.5), r"\S+(tfrecord-\S+|\.record\.json)"),
    (Moment(event="commit: create", share=0.1), r"\.beam_imagenet/\S+/result\.json"),
    (Moment(event="publish: create", share=0), r"(features\.json|label\.labels\.txt)"),
    (Moment(event="publish: create", share=1), r"dataset_info\.json"),
]
"""When it fills up, and what cannot be written."""

FILLER = "filler"
SPARE = 8 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk that can be filled.

    Attributes:
        folder: Where it is, for the processes that `prefix` starts.
        seen: Where it is for this process.
        prefix: What runs a command with the disk in its place.
        full: The action of `kill_at.py` that fills it.
    """

    folder: Path
    seen: Path
    prefix: tuple[str, ...]
    full: str

    @property
    def dataset(self) -> Path:
        """Where the dataset is, for this process."""
        return self.seen / commands.VERSION_FOLDER

    def make_room(self) -> None:
        (self.seen / FILLER).unlink(missing_ok=True)

    def remount(self, how: str) -> None:
        subprocess.run([*self.prefix, "mount", "-o", f"remount,{how}", self.folder], check=True)


class Mount:
    """A small file system in memory; it is mounted for processes of its own namespace alone."""

    def __init__(self, folder: Path, num_bytes: int) -> None:
        """Mounts it.

        Raises:
            OSError: Neither root's rights nor a namespace of the user's allow it.
        """
        folder.mkdir()
        mount = f"mount -t tmpfs -o size={num_bytes} beam_imagenet {folder} && echo mounted && cat"
        for user in ((), ("--user", "--map-root-user")):
            self._holder = subprocess.Popen(
                ["unshare", *user, "--mount", "sh", "-c", mount],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._holder.stdout is not None
            if self._holder.stdout.readline():
                break
            self.end()
        else:
            raise OSError("nothing can be mounted")
        pid = str(self._holder.pid)
        enter = ("--user", "--preserve-credentials") if user else ()
        self.disk = Disk(
            folder=folder,
            seen=Path(f"/proc/{pid}/root{folder}"),
            prefix=(
                *("nsenter", "--target", pid, *enter, "--mount"),
                *("env", f"--chdir={disturbed.REPOSITORY}"),
            ),
            full="fill",
        )

    def end(self) -> None:
        self._holder.communicate()


def mounted(folder: Path, num_bytes: int) -> Iterator[Disk]:
    try:
        mount = Mount(folder, num_bytes)
    except OSError as error:
        pytest.skip(f"{error}; the pretended full disk is tested all the same")
    yield mount.disk
    mount.end()


@pytest.fixture
def large_disk(archives: Path, tmp_path: Path) -> Iterator[Disk]:
    """A mounted disk with room for the dataset."""
    yield from mounted(tmp_path / "disk", archive_bytes(archives) + SPARE)


@pytest.fixture
def small_disk(archives: Path, tmp_path: Path) -> Iterator[Disk]:
    """A mounted disk without room for the dataset."""
    yield from mounted(tmp_path / "disk", archive_bytes(archives) // 2)


@pytest.fixture(params=["mounted", "pretended"])
def disk(request: pytest.FixtureRequest, archives: Path, tmp_path: Path) -> Disk:
    """A disk with room for the dataset, until it is filled."""
    if request.param == "mounted":
        found: Disk = request.getfixturevalue("large_disk")
        return found
    return Disk(folder=tmp_path, seen=tmp_path, prefix=(), full="pretend full")


def archive_bytes(archives: Path) -> int:
    return sum(path.stat().st_size for path in archives.iterdir())


@pytest.fixture(scope="module")
def undisturbed(
    archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], dict[str, bytes]]:
    """Events and files of a run that nothing happens to."""
    data_dir = tmp_path_factory.mktemp("undisturbed")
    ended = disturbed.run(
        *(f"--manual_dir={archives}", f"--data_dir={data_dir}", *OPTIONS), log=data_dir / "log"
    )
    assert ended.status == 0, ended.stderr
    return ended.events, commands.dataset_files(data_dir / commands.VERSION_FOLDER)


@pytest.mark.parametrize(("moment", "file"), FULL, ids=[str(moment) for moment, _ in FULL])
def test_a_disk_that_fills_up_is_told_and_the_run_goes_on_when_there_is_room(
    disk: Disk,
    archives: Path,
    tmp_path: Path,
    undisturbed: tuple[list[str], dict[str, bytes]],
    moment: Moment,
    file: str,
) -> None:
    events, expected = undisturbed
    options = (f"--manual_dir={archives}", f"--data_dir={disk.folder}", *OPTIONS)
    ended = disturbed.run(
        *options,
        log=tmp_path / "log",
        event=moment.event,
        nth=moment.nth(events),
        action=disk.full,
        prefix=disk.prefix,
        environment={"FILLER": str(disk.folder / FILLER)},
    )
    assert ended.status == 1
    message = disturbed.require_one_paragraph(ended.stderr)
    dataset = re.escape(str(disk.folder / commands.VERSION_FOLDER))
    assert re.search(
        rf"{dataset}/{file} cannot be written: No space left on device\. Make room", message
    )
    assert not disturbed.is_published(disk.dataset)
    assert disturbed.unfinished(disk.dataset) == []
    disk.make_room()
    disturbed.require_resumed(disk.dataset, options, expected, prefix=disk.prefix)


def test_a_disk_that_is_full_after_publishing_leaves_the_dataset(
    disk: Disk, archives: Path, tmp_path: Path, undisturbed: tuple[list[str], dict[str, bytes]]
) -> None:
    _, expected = undisturbed
    options = (f"--manual_dir={archives}", f"--data_dir={disk.folder}", *OPTIONS)
    ended = disturbed.run(
        *options,
        log=tmp_path / "log",
        event="result: create",
        nth=1,
        action=disk.full,
        prefix=disk.prefix,
        environment={"FILLER": str(disk.folder / FILLER)},
    )
    assert ended.status == 1
    assert "/result.json cannot be written" in disturbed.require_one_paragraph(ended.stderr)
    assert disturbed.different(commands.dataset_files(disk.dataset), expected) == []
    disk.make_room()
    disturbed.require_resumed(disk.dataset, options, expected, prefix=disk.prefix)


def test_too_little_room_is_told_before_any_work(small_disk: Disk, archives: Path) -> None:
    options = (f"--manual_dir={archives}", f"--data_dir={small_disk.folder}", *OPTIONS)
    done = disturbed.run_plain(*options, prefix=small_disk.prefix)
    assert done.returncode == 1
    message = disturbed.require_one_paragraph(done.stderr)
    assert re.search(r"needs up to [\d.]+ MB .* but only [\d.]+ MB are free\. Make room", message)
    assert list(small_disk.seen.iterdir()) == []
    assert done.stdout == ""


def test_too_little_room_is_told_before_any_work_wherever_it_is(
    archives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same without a mount: the system is made to say so."""
    room = shutil.disk_usage(tmp_path)._replace(free=archive_bytes(archives) - 1)
    usage: Callable[[Path], object] = lambda folder: room  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert __main__.main([f"--manual_dir={archives}", f"--data_dir={tmp_path}/data"]) == 1
    assert "Make room" in disturbed.require_one_paragraph(capsys.readouterr().err)
    assert not (tmp_path / "data").exists()


def test_a_disk_that_is_read_only_is_told_and_used_when_it_can_be(
    large_disk: Disk, archives: Path, undisturbed: tuple[list[str], dict[str, bytes]]
) -> None:
    _, expected = undisturbed
    options = (f"--manual_dir={archives}", f"--data_dir={large_disk.folder}", *OPTIONS)
    large_disk.remount("ro")
    done = disturbed.run_plain(*options, prefix=large_disk.prefix)
    assert done.returncode == 1
    message = disturbed.require_one_paragraph(done.stderr)
    assert f"{large_disk.folder}/" in message
    assert "Read-only file system. Choose another --data_dir." in message
    large_disk.remount("rw")
    assert list(large_disk.seen.iterdir()) == []
    disturbed.require_resumed(large_disk.dataset, options, expected, prefix=large_disk.prefix)


WITHOUT_RIGHTS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if not os.geteuid() else ()
"""Runs a command as somebody whom permissions bind: root without its rights, or the user."""


@pytest.mark.parametrize("folder", [Path(), Path("imagenet2012"), commands.VERSION_FOLDER])
def test_a_folder_without_permission_is_told_and_used_when_it_is_given(
    archives: Path,
    tmp_path: Path,
    undisturbed: tuple[list[str], dict[str, bytes]],
    folder: Path,
) -> None:
    _, expected = undisturbed
    options = (f"--manual_dir={archives}", f"--data_dir={tmp_path}", *OPTIONS)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder).chmod(0o500)
    done = disturbed.run_plain(*options, prefix=WITHOUT_RIGHTS)
    (tmp_path / folder).chmod(0o700)
    assert done.returncode == 1
    message = disturbed.require_one_paragraph(done.stderr)
    assert f"{tmp_path / folder}" in message
    assert "Permission denied. Choose another --data_dir." in message
    disturbed.require_resumed(tmp_path / commands.VERSION_FOLDER, options, expected)


@pytest.mark.parametrize("folder", [Path("imagenet2012"), commands.VERSION_FOLDER])
def test_a_file_where_a_folder_should_be_is_told_and_stays(
    archives: Path, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / folder).write_text("mine")
    done = disturbed.run_plain(f"--manual_dir={archives}", f"--data_dir={tmp_path}", *OPTIONS)
    assert done.returncode == 1
    assert str(tmp_path / folder) in disturbed.require_one_paragraph(done.stderr)
    assert (tmp_path / folder).read_text() == "mine"
