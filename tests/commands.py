"""Runs the command line as a user would: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

VERSION_FOLDER = Path("imagenet2012") / "5.1.0"
RUN_FILE = "result.json"
"""The one file of a dataset that tells of the run itself, and may differ between runs."""


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


def convert(
    *, manual_dir: Path, data_dir: Path, options: tuple[str, ...] = (), version: str = "5.1.0"
) -> Path:
    """Converts, requires success, and returns the dataset's folder."""
    done = run(f"--manual_dir={manual_dir}", f"--data_dir={data_dir}", *options)
    assert done.returncode == 0, done.stderr
    return data_dir / "imagenet2012" / version


def dataset_files(dataset: Path) -> dict[str, bytes]:
    """Each file of a dataset and its bytes, less the one that tells of the run."""
    return {
        str(path.relative_to(dataset)): path.read_bytes()
        for path in sorted(dataset.rglob("*"))
        if path.is_file() and path.name != RUN_FILE
    }
