"""What the fuzz targets of this folder share: how one is started, with which seeds."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import atheris

_DEFAULTS = {"timeout": "10", "max_len": "32768", "rss_limit_mb": "2048"}


def require_sentence(text: str) -> None:
    """What a person is told has words, on one line."""
    assert text
    assert text.isprintable()


def fuzz(check: Callable[[bytes], None], *, name: str, seeds: Mapping[str, bytes]) -> None:
    """Runs libFuzzer on `check` until it raises, takes 10 s, or the runs are over; never returns.

    The process's arguments are libFuzzer's, with one hyphen or two. Without a folder among them the
    corpus is kept in the system's temporary folder, so that the next run goes on from there.

    Args:
        check: Raises for an input that breaks a promise.
        name: Of the corpus.
        seeds: Inputs to start with, by file name.
    """
    given = ["-" + argument.lstrip("-") for argument in sys.argv[1:] if argument.startswith("-")]
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    set_already = {argument[1:].partition("=")[0] for argument in given}
    corpus = Path(folders[0] if folders else Path(tempfile.gettempdir()) / f"fuzz_{name}_corpus")
    if not corpus.is_file():  # a file is one input to repeat
        corpus.mkdir(parents=True, exist_ok=True)
        for seed, content in seeds.items():
            (corpus / seed).write_bytes(content)
    defaults = [f"-{key}={value}" for key, value in _DEFAULTS.items() if key not in set_already]
    atheris.Setup([sys.argv[0], *defaults, *given, str(corpus), *folders[1:]], check)
    atheris.Fuzz()
