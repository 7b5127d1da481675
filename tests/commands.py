"""Runs the command line as a user would: in a process of its own, or in this one where that is enough."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from beam_imagenet import __main__

VERSION_FOLDER = Path("imagenet2012") / "5.1.0"
RUN_FILE = "result.json"
"""The one file of a dataset that tells of the run itself, and may differ between runs."""
STATE_FOLDER = ".beam_imagenet"
"""What runs keep for the next one; it tells of themselves as well."""


class Outcome(NamedTuple):
    """How a command ended: its exit status, and what it printed."""

    status: int
    output: str
    error: str


def run(
    *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m beam_imagenet ARGUMENTS`, with its output as text."""
    return subprocess.run(
        [sys.executable, "-m", "beam_imagenet", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Starts `python -m beam_imagenet ARGUMENTS`, with its output as text."""
    return subprocess.Popen(
        [sys.executable, "-m", "beam_imagenet", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_here(*arguments: str | Path) -> Outcome:
    """The command in this process: a fraction of a second for a small conversion.

    What `main` sets for its process is set back.
    """
    handler = signal.getsignal(signal.SIGTERM)
    hook = threading.excepthook
    output, error = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
            status = __main__.main([*map(str, arguments)])
    finally:
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGTERM, handler)
        threading.excepthook = hook
    return Outcome(status, output.getvalue(), error.getvalue())


def convert(
    *, manual_dir: Path, data_dir: Path, options: tuple[str, ...] = (), version: str = "5.1.0"
) -> Path:
    """Converts, requires success, and returns the dataset's folder."""
    done = run(f"--manual_dir={manual_dir}", f"--data_dir={data_dir}", *options)
    assert done.returncode == 0, done.stderr
    return data_dir / "imagenet2012" / version


def dataset_files(dataset: Path) -> dict[str, bytes]:
    """Each file of a dataset and its bytes, less what tells of the run."""
    return {
        name: (dataset / name).read_bytes()
        for name in stamps(dataset)
        if Path(name).name != RUN_FILE and STATE_FOLDER not in Path(name).parts
    }


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Of each file in a folder, what changes when it is written again: its inode and its time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def written_since(before: Mapping[str, tuple[int, int]], folder: Path) -> set[str]:
    """The shards in a folder that were written since `before`, its `stamps` of then."""
    return {
        name
        for name, stamp in stamps(folder).items()
        if ".tfrecord-" in name and STATE_FOLDER not in name and before.get(name) != stamp
    }


def results(dataset: Path) -> dict[str, dict[str, Any]]:
    """What a dataset's `result.json` says, by split."""
    content = json.loads((dataset / RUN_FILE).read_text())
    return {split["split"]: split for split in content["splits"]}


class Target:
    """Archives and a dataset's folder, for commands that run in this process.

    Attributes:
        manual_dir: Where the archives are.
        data_dir: Where the dataset goes.
        dataset: The dataset's folder.
    """

    def __init__(self, manual_dir: Path, data_dir: Path) -> None:
        self.manual_dir = manual_dir
        self.data_dir = data_dir
        self.dataset = data_dir / VERSION_FOLDER

    def run(self, *options: str) -> Outcome:
        """Converts, however that ends."""
        return run_here(*self.arguments(*options), "--direct_running_mode=in_memory")

    def convert(self, *options: str) -> str:
        """Converts, requires success, and returns what was printed."""
        status, output, error = self.run(*options)
        assert (status, error) == (0, "")
        return output

    def refused(self, *options: str, status: int = 2) -> str:
        """Converts, requires that it fails with one paragraph, and returns that."""
        found, _, error = self.run(*options)
        assert found == status, error
        [message] = error.splitlines()
        assert message.startswith("beam_imagenet: ")
        return message

    def clean(self, *options: str) -> Outcome:
        """Runs `clean`."""
        return run_here("clean", f"--data_dir={self.data_dir}", *options)

    def arguments(self, *options: str) -> list[str]:
        """The command line of a conversion."""
        return [f"--manual_dir={self.manual_dir}", f"--data_dir={self.data_dir}", *options]

    def info(self) -> dict[str, dict[str, Any]]:
        """What is published, by split."""
        content = json.loads((self.dataset / "dataset_info.json").read_text())
        return {split["name"]: split for split in content["splits"]}

    def shards(self) -> set[str]:
        """Paths of all shards, published or not, relative to the dataset's folder."""
        return written_since({}, self.dataset)
