"""Runs the conversion without some of what it does, so that `compare.py` can tell what that costs.

The results are worth nothing: images are not checked or converted, or a loss of power can lose them.
Usage: python benchmarks/variant.py unchecked|unflushed OPTIONS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from beam_imagenet import __main__, commit, dataset_info, plan, shard


def _unchecked() -> None:
    """No image is looked at: no probe, no check, no colour fix."""
    shard._ShardContent._check_and_fix = lambda *_: None  # type: ignore[method-assign]


def _unflushed() -> None:
    """Nothing waits for the disk, and nothing is reconciled."""
    os.fsync = lambda fd: None
    dataset_info.reconcile = lambda *_: None
    commit._require_files = lambda *_: None
    plan._require_tiles = lambda *_: None


if __name__ == "__main__":
    {"unchecked": _unchecked, "unflushed": _unflushed}[sys.argv.pop(1)]()
    __main__.entry_point()
