"""Runs that something happens to (`kill_at.py`), and what they leave for readers and for the next run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from beam_imagenet import layout
from tests import commands, kill_at

REPOSITORY = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that has ended, and left no process.

    Attributes:
        status: Its exit status; minus the signal that it was killed by.
        stdout: What it printed.
        stderr: What it printed there.
        events: The names of `kill_at.py`'s events, in their order.
        flushed: Inodes of the files that are on the disk.
    """

    status: int
    stdout: str
    stderr: str
    events: list[str]
    flushed: set[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """When something happens: at this share of all events of that name; 0 is the first, 1 the last."""

    event: str
    share: float

    def __str__(self) -> str:
        return f"{self.event} {self.share:.0%}"

    def nth(self, events: Sequence[str]) -> int:
        """The number of the event, from 1, in a run that has these."""
        count = events.count(self.event)
        assert count, f"there is no event {self.event!r}"
        return max(1, math.ceil(self.share * count))


def run(
    *options: str | Path,
    log: Path,
    event: str = "",
    nth: int = 0,
    action: str = "kill all",
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Runs the command in a session of its own, for a minute at most; at the n-th event happens the action.

    Args:
        options: Of `python -m beam_imagenet`.
        log: Where the events are noted.
        event: Name of the event.
        nth: Its number, from 1; 0 never comes.
        action: What happens at it, of `kill_at.ACTIONS`.
        prefix: A command that runs the command.
        environment: Variables that are set besides those of this process.
    """
    log.unlink(missing_ok=True)
    kill = (sys.executable, "-m", "tests.kill_at", str(log), event, str(nth), action, "--")
    running = subprocess.Popen(
        [*prefix, *kill, *map(str, options)],
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = running.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        raise
    require_no_process(running.pid)
    lines = log.read_text().splitlines()
    inodes = {line for line in lines if line.startswith(kill_at.FLUSHED)}
    return Ended(
        status=running.returncode,
        stdout=stdout,
        stderr=stderr,
        events=[line for line in lines if line not in inodes],
        flushed={int(line.removeprefix(kill_at.FLUSHED)) for line in inodes},
    )


def run_plain(*options: str | Path, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user would; `prefix` as in `run`."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "beam_imagenet", *map(str, options)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def require_no_process(session: int) -> None:
    """Waits until no process of a session is left, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while left := _processes(session):
        if time.monotonic() > deadline:
            pytest.fail(f"processes of the run are left: {left}")
        time.sleep(0.02)


def _processes(session: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            content = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, its_session = content.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state != "Z":
            found.append(content)
    return found


def require_one_paragraph(stderr: str) -> str:
    """The message of a run that failed, and said so in one paragraph."""
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("beam_imagenet: ")
    return lines[0]


def different(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Names of the files that differ, or are missing in one; a comparison of bytes prints them all."""
    return sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )


def is_published(dataset: Path) -> bool:
    """Whether readers find a dataset."""
    return (dataset / layout.DATASET_INFO).exists()


def recorded_shards(dataset: Path) -> dict[Path, tuple[int, int]]:
    """The shards that a record tells of: inode and time of the last change of each."""
    shards = {}
    for record in dataset.glob(f"{layout.STATE}/*/*.record.json"):
        name = record.name.removesuffix(".record.json")
        generation = dataset / record.parent.name
        path = (generation if generation.exists() else dataset) / name
        status = path.stat()
        assert status.st_size == json.loads(record.read_bytes())["file_bytes"], path
        shards[path] = status.st_ino, status.st_mtime_ns
    return shards


def kept_shards(stdout: str) -> int:
    """How many shards a run said it keeps, before it began."""
    start = stdout.partition("\n\n")[0]
    return sum(
        int(match[1])
        for line in start.splitlines()
        if (match := re.fullmatch(r"\w+ +(\d+) of \d+ shards kept", line))
    )


def unfinished(dataset: Path) -> list[Path]:
    """What lies in the folder of files that are being written."""
    return list(layout.scratch(dataset).iterdir())


def require_resumed(
    dataset: Path,
    options: Sequence[str | Path],
    expected: Mapping[str, bytes],
    *,
    prefix: Sequence[str] = (),
) -> None:
    """Runs the plain command after a run that was disturbed; requires that it does what is left.

    Nothing that has a record is written again, all files are as they would have been, and the run says
    what it kept.

    Args:
        dataset: Where the dataset is, as this process sees it.
        options: Of the command.
        expected: The files of an undisturbed run.
        prefix: As in `run`.
    """
    was_complete = is_published(dataset) and not different(
        commands.dataset_files(dataset), expected
    )
    before = recorded_shards(dataset) if dataset.exists() else {}
    done = run_plain(*options, prefix=prefix)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    if was_complete:
        assert "nothing to do" in done.stdout
    else:
        assert kept_shards(done.stdout) == len(before), done.stdout
    assert different(commands.dataset_files(dataset), expected) == [], different(
        commands.dataset_files(dataset), expected
    )
    after = recorded_shards(dataset)
    rewritten = [path.name for path in before if after[path] != before[path]]
    assert rewritten == [], rewritten
    assert (dataset / layout.RESULT).exists()
    assert unfinished(dataset) == [], unfinished(dataset)
