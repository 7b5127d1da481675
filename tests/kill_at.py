"""A run to which something happens at a chosen moment: `python -m tests.kill_at LOG EVENT N ACTION -- ...`.

Whatever the package does to the world is an event with a name, "STAGE: OPERATION", counted over all
processes of the run. Right before the N-th event of that name, or in the middle of it if it is a write,
happens what ACTION says (`ACTIONS`). LOG gets the name of each event, a line each, and the inode of
each file that is flushed to the disk. What follows `--` are the arguments of `python -m beam_imagenet`,
which runs as ever but for the events.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from beam_imagenet import __main__, commit, plan, storage

STAGES = {
    ("commit", "_publish"): "publish",
    ("commit", "write_result"): "result",
    ("commit", "commit"): "commit",
    ("records", "keep"): "record",
    ("shard", "_publish"): "finish shard",
    ("shard", "write"): "write shard",
    ("inventory", "list_segments"): "list segments",
    ("inventory", "read_segment"): "walk headers",
    ("target", "occupied"): "occupy",
}
"""What a function of the package is doing, by its module and name; the innermost one counts."""

OPERATIONS = {
    "os.rename": "rename",
    "os.link": "link",
    "os.remove": "remove",
    "os.mkdir": "make folder",
    "fcntl.flock": "lock",
}
"""The audit events of Python that change the world."""

_FORK = multiprocessing.get_context("fork")
_LAUNCHER = os.getpid()
_FULL = _FORK.Value("b", 0)
_SLOW = _FORK.Value("b", 0)


def _kill_all() -> None:
    os.killpg(0, signal.SIGKILL)


def _kill_one() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_launcher() -> None:
    os.kill(_LAUNCHER, signal.SIGKILL)


def _terminate() -> None:
    os.kill(_LAUNCHER, signal.SIGTERM)


def _interrupt() -> None:
    os.killpg(0, signal.SIGINT)


def _fill() -> None:
    with open(os.environ["FILLER"], "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def _pretend_full() -> None:
    _FULL.value = 1


def _fail() -> NoReturn:
    _SLOW.value = 1
    raise OSError(errno.EIO, os.strerror(errno.EIO))


ACTIONS: dict[str, Callable[[], None]] = {
    "kill all": _kill_all,
    "kill one": _kill_one,
    "kill launcher": _kill_launcher,
    "terminate": _terminate,
    "interrupt": _interrupt,
    "fill": _fill,
    "pretend full": _pretend_full,
    "fail": _fail,
}
"""SIGKILL to all processes, to the one that the event is in, or to the launcher; SIGTERM to the launcher;
SIGINT to all, as Ctrl-C does; a file (its path in $FILLER) that takes all room; the same, pretended in this
run alone; the operation fails, and all shards that are begun from then on take a quarter of a second more.
"""

FLUSHED = "flushed inode "
"""What a line of the log starts with that is no event's."""

ANY = "any"
"""Stands for an event of every name. `NAME in ForkProcess-2` is one in the second worker."""


class Moment:
    """The event that is waited for, and what happens at it."""

    def __init__(self, log: Path, name: str, nth: int, action: Callable[[], None]) -> None:
        """Starts counting."""
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._name = name
        self._action = action
        self._left = _FORK.Value("i", nth)

    def pass_by(self, name: str) -> None:
        """Notes an event, and does what is to happen at it."""
        os.write(self._log, f"{name}\n".encode())
        if name == "write shard: create" and _SLOW.value:
            time.sleep(0.25)
        worker = multiprocessing.current_process().name
        if self._name not in (name, f"{name} in {worker}", ANY):
            return
        with self._left:
            self._left.value -= 1
            if self._left.value == 0:
                self._action()

    def flushed(self, inode: int) -> None:
        """Notes a file whose bytes are on the disk."""
        os.write(self._log, f"{FLUSHED}{inode}\n".encode())


def _stage(frame: FrameType | None) -> str | None:
    while frame is not None:
        package, _, module = frame.f_globals.get("__name__", "").partition(".")
        stage = STAGES.get((module, frame.f_code.co_name))
        if package == "beam_imagenet" and stage is not None:
            return stage
        frame = frame.f_back
    return None


def _is_ours(path: object, flags: int) -> bool:
    changes = flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
    return bool(changes) and "__pycache__" not in str(path)


def watch(moment: Moment) -> None:
    """Has every event of the package pass by `moment`, in this process and those that it forks."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and _is_ours(arguments[0], arguments[2]):
            operation = "create"
        elif event in OPERATIONS:
            operation = OPERATIONS[event]
        else:
            return
        if (stage := _stage(sys._getframe(1))) is not None:
            moment.pass_by(f"{stage}: {operation}")

    def announced(function: Callable[..., Any], operation: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def announce(*arguments: Any) -> Any:
            if (stage := _stage(sys._getframe(1))) is not None:
                moment.pass_by(f"{stage}: {operation}")
            return function(*arguments)

        return announce

    write = storage.WholeFile.write

    @functools.wraps(write)
    def write_by_halves(self: storage.WholeFile, data: memoryview | bytes) -> None:
        half = len(data) // 2
        write(self, memoryview(data)[:half])
        moment.pass_by(f"{_stage(sys._getframe(1))}: write")
        write(self, memoryview(data)[half:])

    fsync = os.fsync

    @functools.wraps(fsync)
    def note_and_fsync(descriptor: int) -> None:
        fsync(descriptor)
        moment.flushed(os.fstat(descriptor).st_ino)

    plan_split, commit_all = plan.plan_split, commit.commit

    @functools.wraps(plan_split)
    def plan_and_pass(*arguments: Any) -> Any:
        moment.pass_by("plan: start")
        planned = plan_split(*arguments)
        moment.pass_by("plan: end")
        return planned

    @functools.wraps(commit_all)
    def commit_and_pass(*arguments: Any) -> None:
        moment.pass_by("commit: start")
        commit_all(*arguments)
        moment.pass_by("commit: end")

    patches: list[tuple[Any, str, Any]] = [
        (os, "fsync", announced(note_and_fsync, "fsync")),
        (os, "preadv", announced(os.preadv, "read")),
        (storage.WholeFile, "write", write_by_halves),
        (storage, "open", _open),
        (plan, "plan_split", plan_and_pass),
        (commit, "commit", commit_and_pass),
    ]
    for owner, name, function in patches:
        setattr(owner, name, function)
    sys.addaudithook(hook)


class _File(io.FileIO):
    """A file on a disk that may be full, as `_FULL` says."""

    def write(self, data: Any) -> int:
        if _FULL.value:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def _open(path: Path, mode: str, buffering: int = -1) -> Any:
    return _File(path, mode) if buffering == 0 else open(path, mode, buffering)


def main() -> NoReturn:
    """Runs the command."""
    log, event, nth, action, _, *arguments = sys.argv[1:]
    watch(Moment(Path(log), event, int(nth), ACTIONS[action]))
    sys.argv[1:] = arguments
    __main__.entry_point()
    raise AssertionError("entry_point ends the process")


if __name__ == "__main__":
    main()
