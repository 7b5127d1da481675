"""The `inspect` command: what archives are, in words, and whether the dataset has room.

Knows nothing of Beam, nor of how an archive is judged (`inspection.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from tqdm import tqdm

from beam_imagenet import archives, inspection, storage
from beam_imagenet.errors import StorageError, UsageError
from beam_imagenet.inspection import Inspection, Progress
from beam_imagenet.model import ARCHIVES, Source
from beam_imagenet.space import needed_bytes, readable_size, require_room, room


def main(arguments: Sequence[str]) -> int:
    """Runs the `inspect` command.

    Args:
        arguments: The command line without the program's name and the command's.

    Returns:
        The exit status: 0, or 1 if an archive is damaged or the dataset has no room.

    Raises:
        UsageError: The call was wrong, or no archive was found.
    """
    given = _parse(arguments)
    sources = {source.split: source for source in archives.find_sources(given)}
    usable = True
    for split in archives.splits_of(given.dataset_version):
        if split in sources:
            found = _inspect(sources[split], full_check=given.full)
            usable = usable and found.is_usable
            size = readable_size(found.source.size)
            print(f"{split:<10}  {found.source.archive} ({size}): {found.verdict}", flush=True)
            for text in found.texts:
                print(f"{'':<10}  {text}", flush=True)
        elif given.splits is None:
            names = " or ".join(ARCHIVES[split])
            print(f"{split:<10}  no archive found; looked for {names}", flush=True)
    dataset_dir = archives.dataset_dir(given)
    needed = needed_bytes(sources.values())
    print(
        f"{'dataset':<10}  {dataset_dir}: needs up to {readable_size(needed)}, "
        f"{readable_size(room(dataset_dir))} free"
    )
    try:
        require_room(sources.values(), dataset_dir, already=storage.total_size(dataset_dir))
    except StorageError as error:
        print(f"{'':<10}  {error}")
        usable = False
    return 0 if usable else 1


def _inspect(source: Source, *, full_check: bool) -> Inspection:
    try:
        if not full_check:
            return inspection.quick(source)
        with _progress(source) as progress:
            return inspection.full(source, progress)
    except StorageError as error:
        return Inspection(source=source, verdict=inspection.UNREADABLE, texts=(str(error),))


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are those of this package."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See inspect --help.")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m beam_imagenet inspect",
        description="Tell whether the archives are whole, whether they are the official ones, and whether "
        "the dataset has room. Without --full it looks at sizes and at both ends of each archive.",
        allow_abbrev=False,
    )
    archives.add_arguments(parser)
    parser.add_argument(
        "--full",
        action="store_true",
        help="read every header, count the images, and compare checksums; reads each archive once",
    )
    given, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        name = unknown[0].partition("=")[0]
        known = list(parser._option_string_actions)
        raise UsageError(
            f"Unknown option {name}{archives.nearest(name, known)} See inspect --help."
        )
    return given


@contextlib.contextmanager
def _progress(source: Source) -> Iterator[Progress]:
    """Shows on standard error how far an inspection is: a bar on a terminal, else lines."""
    if not sys.stderr.isatty():
        yield _Lines(source)
        return
    with tqdm(total=source.size, unit="B", unit_scale=True, leave=False, dynamic_ncols=True) as bar:

        def show(stage: str, done: int) -> None:
            if done < bar.n:
                bar.reset()
            bar.set_description(f"{source.split} {stage}", refresh=False)
            bar.update(done - bar.n)

        yield show


class _Lines:
    """A line at each tenth of a stage."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._shown = ("", 0)

    def __call__(self, stage: str, done: int) -> None:
        now = (stage, 10 * done // self._source.size)
        if now != self._shown and now[1]:
            self._shown = now
            size = readable_size(self._source.size)
            print(
                f"{self._source.split} {stage}: {10 * now[1]} % of {size}",
                file=sys.stderr,
                flush=True,
            )
