"""The `inspect` command tells of every archive and of the room, and how far it is."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from beam_imagenet import inspect_command, inspection
from beam_imagenet.errors import StorageError, UsageError
from beam_imagenet.model import SPLITS
from beam_imagenet.storage import ArchiveFile
from tests.inspections import (
    FILES,
    has_free,
    make_official,
    sample,
    sha256,
    validation_tar,
    whole_train,
)


def inspect(manual_dir: Path, data_dir: Path, *options: str) -> int:
    return inspect_command.main([f"--manual_dir={manual_dir}", f"--data_dir={data_dir}", *options])


def manual_dir(folder: Path, contents: Mapping[str, bytes]) -> Path:
    folder.mkdir()
    for split, content in contents.items():
        (folder / FILES[split]).write_bytes(content)
    return folder


def test_the_command_tells_of_each_archive_and_of_the_room(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(archives, tmp_path) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        *([split, str(archives / FILES[split])] for split in SPLITS),
        ["dataset", f"{tmp_path / 'imagenet2012' / '5.1.0'}:"],
    ]
    size = (archives / FILES["train"]).stat().st_size
    assert f" ({size / 1e6:.1f} MB): has {size:,} bytes, not the official 147,8" in lines[0]
    needed = sum((archives / file).stat().st_size for file in FILES.values())
    assert f": needs up to {needed / 1e6:.1f} MB, " in lines[3]
    assert lines[3].endswith(" free")
    assert err == ""
    assert list(tmp_path.iterdir()) == []


def test_the_full_command_reads_everything(
    archives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = sample(archives, "validation")
    make_official(monkeypatch, source, size=source.size, checksum=sha256(source))
    assert inspect(archives, tmp_path, "--full") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].endswith(": whole, but holds 1,100 of 1,281,167 images")
    assert lines[1].endswith(": official")
    assert lines[2].endswith(": whole, but holds 60 of 100,000 images")
    assert "validation checksum: 100 % of 0.2 MB" in err.splitlines()


@pytest.mark.parametrize("options", [(), ("--full",)])
def test_a_damaged_archive_is_told_of_and_the_others_too(
    archives: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
) -> None:
    folder = manual_dir(
        tmp_path / "archives",
        {"train": b"<html>Sign in", "validation": (archives / FILES["validation"]).read_bytes()},
    )
    assert inspect(folder, tmp_path, *options) == 1
    lines = capsys.readouterr().out.splitlines()
    train = folder / FILES["train"]
    assert lines[0] == f"train       {train} (0.0 MB): damaged"
    assert lines[1].startswith(f"            {train} is a web page (HTML), not a tar: ")
    assert lines[2].startswith(f"validation  {folder / FILES['validation']} (0.2 MB): ")
    assert lines[-2] == (
        "test        no archive found; looked for ILSVRC2012_img_test.tar or "
        "ILSVRC2012_img_test_v10102019.tar"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), ["train", "test"]),
        (("--dataset_version=5.0.0",), ["train"]),
        (("--splits=validation",), []),
    ],
)
def test_missing_archives_are_told_of_unless_they_are_not_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], told: list[str]
) -> None:
    folder = manual_dir(tmp_path / "archives", {"validation": validation_tar([1])})
    assert inspect(folder, tmp_path, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "no archive found" in line] == told


def test_an_archive_that_cannot_be_read_does_not_hide_the_others(
    archives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Refusing(ArchiveFile):
        def read(self, offset: int, size: int) -> bytes:
            if self.path.endswith(FILES["train"]):
                raise StorageError(f"{self.path} cannot be read at byte {offset:,}: broken disk.")
            return super().read(offset, size)

    monkeypatch.setattr("beam_imagenet.archives.ArchiveFile", Refusing)
    assert inspect(archives, tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": cannot be read")
    assert "broken disk" in lines[1]
    assert lines[2].startswith("validation ")


def test_too_little_room_fails_the_command(
    archives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    has_free(monkeypatch, 1_000_000)
    assert inspect(archives, tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith(" MB, 1.0 MB free")
    assert "but only 1.0 MB are free. Make room" in lines[-1]
    # What an earlier run has written needs no more room.
    dataset = tmp_path / "imagenet2012" / "5.1.0" / "folder"
    dataset.mkdir(parents=True)
    (dataset / "shard").write_bytes(b"")
    os.truncate(dataset / "shard", 20_000_000)
    assert inspect(archives, tmp_path) == 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--ful", "Unknown option --ful; the nearest known one is --full"),
        ("--splits=trian", "there is no split 'trian'"),
        ("--dataset_version=4.0.0", "--dataset_version: invalid choice"),
        ("rest", "Unknown option rest"),
    ],
)
def test_a_wrong_call_is_refused(archives: Path, tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inspect(archives, tmp_path, option)


def test_a_folder_without_archives_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No archive was found"):
        inspect(tmp_path, tmp_path)


# Progress for a person


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar that counts how often it began anew."""

    resets = 0

    def reset(self, total: float | None = None) -> None:
        """Begins anew."""
        self.resets += 1
        super().reset(total)


def test_a_terminal_gets_a_bar_with_rate_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = manual_dir(tmp_path / "archives", {"train": whole_train()})
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(inspection, "_READ_BYTES", 100_000)
    bars: list[Bar] = []

    def make_bar(**options: Any) -> Bar:
        bars.append(Bar(mininterval=0, **options))
        return bars[-1]

    monkeypatch.setattr(inspect_command, "tqdm", make_bar)
    assert inspect(folder, tmp_path, "--full") == 0
    shown = terminal.getvalue()
    assert bars[0].resets == 1  # the rate of one stage says nothing of the other's
    assert "train headers: " in shown
    assert "train checksum: " in shown
    assert "B/s" in shown
    assert "100%" in shown
    assert not [line for line in shown.splitlines() if line.endswith(" MB")]


def test_what_is_no_terminal_gets_a_line_at_each_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = manual_dir(tmp_path / "archives", {"train": whole_train()})
    monkeypatch.setattr(inspection, "_READ_BYTES", 10_240)
    assert inspect(folder, tmp_path, "--full") == 0
    err = capsys.readouterr().err
    size = (folder / FILES["train"]).stat().st_size / 1e6
    assert err.splitlines() == [
        f"train {stage}: {share} % of {size:.1f} MB"
        for stage in ("headers", "checksum")
        for share in range(10, 101, 10)
    ]
    assert "\r" not in err
