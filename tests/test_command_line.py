"""What a person types, what they see, and the exit status: 0 done, 1 the job failed, 2 a wrong call."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import commands

COMMAND = (sys.executable, "-m", "beam_imagenet")


def refused(*arguments: str | Path, status: int = 2, **environment: str) -> str:
    """Runs, requires the failure and one paragraph about it, and returns the paragraph."""
    done = commands.run(*arguments, environment=environment)
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("beam_imagenet: ")
    return lines[0]


@pytest.fixture
def two_archives(archives: Path, tmp_path: Path) -> Path:
    """A folder with the validation and the test archive alone."""
    folder = tmp_path / "two_archives"
    folder.mkdir()
    for name in ("val", "test"):
        os.symlink(archives / f"ILSVRC2012_img_{name}.tar", folder / f"ILSVRC2012_img_{name}.tar")
    return folder


def test_a_run_shows_what_it_found_and_a_table(archives: Path, tmp_path: Path) -> None:
    done = commands.run(f"--manual_dir={archives}", f"--data_dir={tmp_path}")
    assert done.returncode == 0
    assert done.stderr == ""
    start, table, fixes, end = done.stdout.split("\n\n")[0], *done.stdout.split("\n\n", 2)[1:], ""
    assert [line.split()[0] for line in start.splitlines()] == [
        "train",
        "validation",
        "test",
        "dataset",
    ]
    assert str(archives / "ILSVRC2012_img_train.tar") in start
    assert re.search(r"\(\d+\.\d MB\)", start)
    assert str(tmp_path / commands.VERSION_FOLDER) in start
    rows = {line.split()[0]: line.split() for line in table.splitlines()}
    assert rows["split"] == [
        *("split", "images", "bytes", "shards", "classes", "fixes", "bad", "write", "s", "MB/s")
    ]
    assert rows["train"][1] == "1,100"
    assert rows["train"][3:7] == ["1", "1,000", "23", "0"]
    assert rows["test"][4] == "-"
    assert "n02105855_2933.JPEG" in fixes + end
    assert "Not known" not in done.stdout
    assert "not found so" not in done.stdout
    assert re.search(r"\d+\.\d s in all, \d+ MB/s", done.stdout)


def test_any_subset_of_the_archives_works(two_archives: Path, tmp_path: Path) -> None:
    dataset = commands.convert(manual_dir=two_archives, data_dir=tmp_path / "data")
    assert sorted(path.name for path in dataset.glob("*.tfrecord-*")) == [
        "imagenet2012-test.tfrecord-00000-of-00001",
        "imagenet2012-validation.tfrecord-00000-of-00001",
    ]


def test_splits_picks(archives: Path, tmp_path: Path) -> None:
    dataset = commands.convert(
        manual_dir=archives, data_dir=tmp_path, options=("--splits=validation",)
    )
    assert len(list(dataset.glob("*.tfrecord-*"))) == 1


def test_archives_that_lie_elsewhere_are_named(archives: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.tar"
    shutil.copy(archives / "ILSVRC2012_img_val.tar", elsewhere)
    dataset = commands.convert(
        manual_dir=tmp_path / "empty",
        data_dir=tmp_path / "data",
        options=(f"--validation={elsewhere}",),
    )
    assert len(list(dataset.glob("imagenet2012-validation.*"))) == 1
    assert "no such file" in refused(f"--train={tmp_path}/nowhere.tar")


def test_todays_name_of_the_test_archive_is_found_and_two_are_ambiguous(
    archives: Path, tmp_path: Path
) -> None:
    shutil.copy(
        archives / "ILSVRC2012_img_test.tar", tmp_path / "ILSVRC2012_img_test_v10102019.tar"
    )
    dataset = commands.convert(manual_dir=tmp_path, data_dir=tmp_path / "data")
    assert len(list(dataset.glob("imagenet2012-test.*"))) == 1
    shutil.copy(archives / "ILSVRC2012_img_test.tar", tmp_path)
    message = refused(f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}/other")
    assert "two test archives" in message
    assert "--test=" in message


def test_no_archive_names_the_files_and_the_folder(tmp_path: Path) -> None:
    message = refused(f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}/data")
    for text in (
        str(tmp_path),
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_img_val.tar",
        "ILSVRC2012_img_test.tar",
        "ILSVRC2012_img_test_v10102019.tar",
    ):
        assert text in message
    assert not (tmp_path / "data").exists()


def test_the_default_folders_are_tfds_own(archives: Path, tmp_path: Path) -> None:
    manual_dir = tmp_path / "tensorflow_datasets" / "downloads" / "manual"
    manual_dir.mkdir(parents=True)
    shutil.copy(archives / "ILSVRC2012_img_val.tar", manual_dir)
    done = commands.run(environment={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    dataset = tmp_path / "tensorflow_datasets" / commands.VERSION_FOLDER
    assert (dataset / "dataset_info.json").exists()


def test_archives_are_read_in_place(archives: Path, tmp_path: Path) -> None:
    before = {path: path.stat() for path in archives.rglob("*")}
    commands.convert(manual_dir=archives, data_dir=tmp_path / "data")
    assert {path: path.stat().st_mtime_ns for path in archives.rglob("*")} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_wrong_call_is_explained_and_starts_nothing(archives: Path, tmp_path: Path) -> None:
    options = (f"--manual_dir={archives}", f"--data_dir={tmp_path}/data")
    assert "--num_shards." in refused(*options, "--num_shard=train:2")
    assert "loses elements" in refused(*options, "--direct_running_mode=multi_threading")
    assert "NoSuchRunner" in refused(*options, "--runner=NoSuchRunner")
    assert not (tmp_path / "data").exists()


def test_more_shards_than_images_is_explained(archives: Path, tmp_path: Path) -> None:
    # Known only when the headers were read, so the job has started.
    options = (f"--manual_dir={archives}", f"--data_dir={tmp_path}", "--num_shards=test:61")
    assert "only 60 images" in refused(*options, status=1)
    assert not list(tmp_path.rglob("dataset_info.json"))


def test_a_dataset_that_is_there_is_left_alone(archives: Path, tmp_path: Path) -> None:
    options = (f"--manual_dir={archives}", f"--data_dir={tmp_path}", "--splits=validation")
    assert commands.run(*options).returncode == 0
    before = commands.stamps(tmp_path)
    done = commands.run(*options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path / commands.VERSION_FOLDER} is complete" in done.stdout
    assert commands.stamps(tmp_path) == before
    assert "--overwrite" in refused(*options, "--num_shards=validation:2")
    assert commands.stamps(tmp_path) == before


def test_a_damaged_archive_is_one_paragraph_with_archive_member_and_offset(
    archives: Path, tmp_path: Path
) -> None:
    content = bytearray((archives / "ILSVRC2012_img_val.tar").read_bytes())
    content[512:514] = b"GI"  # the first image's start mark
    damaged = tmp_path / "ILSVRC2012_img_val.tar"
    damaged.write_bytes(content)
    options = (f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}/data")
    message = refused(*options, status=1)
    assert f"{damaged}: member 'ILSVRC2012_val_00000001.JPEG'" in message
    assert "at byte 512" in message
    damaged.write_bytes(content[: len(content) // 2])
    message = refused(*options, "--fresh", status=1)
    assert str(damaged) in message
    assert re.search(r"at byte [\d,]+", message)
    assert "cut off" in message
    assert not list((tmp_path / "data").rglob("*.tfrecord-*"))


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(b"<html>" + bytes(20474))
    done = commands.run(f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}", "--verbose")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ArchiveError" in done.stderr


def test_help_fits_a_person() -> None:
    done = commands.run("--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) < 45
    assert max(map(len, lines)) <= 100
    for option in ("--manual_dir", "--splits", "--num_shards", "--config", "--help_beam"):
        assert sum(line.strip().startswith(option) for line in lines) == 1
    assert "--temp_location" not in done.stdout
    assert "--temp_location" in commands.run("--help_beam").stdout


def test_the_console_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("beam-imagenet")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout == commands.run("--help").stdout


def start(archives: Path, data_dir: Path) -> subprocess.Popen[str]:
    """Starts a conversion with two workers, which are there when this returns."""
    running = subprocess.Popen(
        [*COMMAND, f"--manual_dir={archives}", f"--data_dir={data_dir}", "--direct_num_workers=2"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    running.stdout.readline()  # the workers are forked before the first line
    return running


def workers_of(running: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    return [int(child) for child in children.read_text().split()]


def require_no_process(group: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("processes of the run are left")


MOMENTS = [0.0, 0.1, 0.17, 0.25, 0.35]
"""Seconds after the fork: before workers connect, while they do, and in the stages."""


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_that_dies_ends_the_run(archives: Path, tmp_path: Path, moment: float) -> None:
    running = start(archives, tmp_path)
    time.sleep(moment)
    os.kill(workers_of(running)[0], signal.SIGKILL)
    _, message = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "ended with exit code -9" in message
    assert len(message.strip().splitlines()) == 1
    require_no_process(running.pid)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_leaves_no_process(
    archives: Path, tmp_path: Path, moment: float, number: signal.Signals
) -> None:
    running = start(archives, tmp_path)
    time.sleep(moment)
    os.killpg(running.pid, number)
    _, message = running.communicate(timeout=30)
    assert running.returncode == 1
    there = (tmp_path / commands.VERSION_FOLDER / "dataset_info.json").exists()
    told = (
        "Interrupted; the dataset is complete."
        if there
        else "Interrupted; no dataset was written. Shards that are complete are kept, and the same "
        "command goes on with them."
    )
    if number == signal.SIGINT:  # SIGTERM reaches the workers too, and may be told as their death
        assert told in message
    require_no_process(running.pid)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_workers_end_with_a_launcher_that_is_killed(
    archives: Path, tmp_path: Path, moment: float
) -> None:
    running = start(archives, tmp_path)
    time.sleep(moment)
    running.kill()
    running.wait()
    require_no_process(running.pid)


def test_a_run_goes_on_where_an_interrupted_one_ended(archives: Path, tmp_path: Path) -> None:
    expected = commands.convert(manual_dir=archives, data_dir=tmp_path / "expected")
    running = start(archives, tmp_path)
    time.sleep(MOMENTS[-1])
    os.killpg(running.pid, signal.SIGINT)
    running.communicate(timeout=30)
    dataset = commands.convert(manual_dir=archives, data_dir=tmp_path)
    assert commands.dataset_files(dataset) == commands.dataset_files(expected)


def test_two_identical_runs_at_once_both_succeed(archives: Path, tmp_path: Path) -> None:
    expected = commands.convert(manual_dir=archives, data_dir=tmp_path / "expected")
    running = start(archives, tmp_path)
    dataset = commands.convert(manual_dir=archives, data_dir=tmp_path)
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert commands.dataset_files(dataset) == commands.dataset_files(expected)


def test_a_reader_of_the_output_who_leaves_changes_nothing(archives: Path, tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*COMMAND, f"--manual_dir={archives}", f"--data_dir={tmp_path}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(timeout=60) == 0
    assert (tmp_path / commands.VERSION_FOLDER / "dataset_info.json").exists()


def test_a_sample_ends_without_a_word_on_stderr(tmp_path: Path) -> None:
    done = commands.run("sample", f"--out={tmp_path}", "--train_images=0", "--validation_images=0")
    assert (done.returncode, done.stderr) == (0, "")
