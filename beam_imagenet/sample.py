"""Makes archives in the official ILSVRC-2012 layout from drawn images: the `sample` command.

With them anyone can run the real job, without ImageNet's licence and at any size. The same seed
and options give the same bytes, whatever the number of processes. Knows nothing of how an image is
drawn (`drawing.py`), and nothing of Beam or TensorFlow.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import multiprocessing
import os
import tarfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from beam_imagenet import drawing, labels
from beam_imagenet.model import ARCHIVES

TRAIN_ARCHIVE, VALIDATION_ARCHIVE, TEST_ARCHIVE = (names[0] for names in ARCHIVES.values())

MAX_VALIDATION_IMAGES = labels.IMAGES["validation"]
MAX_TEST_IMAGES = labels.IMAGES["test"]

_PART_IMAGES = 250
"""Images drawn by one task: large beside the cost of a task, yet 30 MB at full scale."""

_WAITING_PARTS = 2
_NUMBER_STEP = 20
_ODD_IMAGES = labels.CMYK_IMAGES | labels.PNG_IMAGES
_YCCK_IMAGES = frozenset(sorted(labels.CMYK_IMAGES)[::7])
_MTIME = 1_339_372_800  # June 11, 2012
_OWNER = "imagenet"


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """What to make. Everything but `processes` decides the bytes.

    Attributes:
        train_images: 0, or at least 1,000: spread over the synsets, no two of which differ by more
            than one image.
        validation_images: 0 to 50,000.
        test_images: 0 to 100,000.
        image_bytes: Mean size of a photograph; ILSVRC-2012's is 109,600.
        seed: Another seed gives other images.
        layout: Where the test archive has its images: at the top (`flat`) or in a directory `test`
            (`folders`), as in repacked copies.
        processes: How many processes draw.
    """

    train_images: int = 3000
    validation_images: int = 300
    test_images: int = 300
    image_bytes: int = 4000
    seed: int = 0
    layout: Literal["flat", "folders"] = "flat"
    processes: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError, worded for the user, if there is no such sample."""
        if self.train_images < 0 or 0 < self.train_images < labels.NUM_CLASSES:
            raise ValueError(
                f"train_images is {self.train_images}: the archive has a tar for each of the "
                f"{labels.NUM_CLASSES:,} synsets and none is empty; ask for 0 or at least "
                f"{labels.NUM_CLASSES:,}"
            )
        for name, value, low, high in (
            ("validation_images", self.validation_images, 0, MAX_VALIDATION_IMAGES),
            ("test_images", self.test_images, 0, MAX_TEST_IMAGES),
            ("image_bytes", self.image_bytes, drawing.MIN_IMAGE_BYTES, drawing.MAX_IMAGE_BYTES),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}: it must be from {low:,} to {high:,}")
        if self.processes < 1:
            raise ValueError(f"processes is {self.processes}: it takes at least 1")

    def archives(self) -> tuple[str, ...]:
        """Names of the archives this sample has; a split of 0 images has none."""
        counts = {
            TRAIN_ARCHIVE: self.train_images,
            VALIDATION_ARCHIVE: self.validation_images,
            TEST_ARCHIVE: self.test_images,
        }
        return tuple(name for name, count in counts.items() if count)


@dataclass(frozen=True, kw_only=True)
class WrittenArchive:
    """One archive that lies complete under its official name."""

    path: Path
    images: int
    size: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Consecutive members of one tar, drawn by one task."""

    folder: str
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Tar:
    """A tar of images: an archive itself, or one synset's within the train archive."""

    name: str
    folder: str
    parts: tuple[_Part, ...]


def make_archives(spec: SampleSpec, out: Path) -> list[Path]:
    """Makes the archives of `spec` in the directory `out`, replacing those of the same name.

    Each gets its official name when it is complete. With more than one process, a script that
    calls this needs the usual `if __name__ == "__main__":`.

    Raises:
        OSError: An archive cannot be written; what was written of it is removed.
    """
    return [archive.path for archive in _made_archives(spec, out)]


def main(argv: Sequence[str]) -> int:
    """Runs the `sample` command; `argv` is without the command's name. Exits with 2 on misuse."""
    parser = _parser()
    options = vars(parser.parse_args(argv))
    out: Path = options.pop("out")
    force: bool = options.pop("force")
    try:
        spec = SampleSpec(**options)
    except ValueError as e:
        parser.error(str(e))
    if not spec.archives():
        parser.error("all three splits have 0 images: there is nothing to make")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        parser.error(f"--out={out} cannot be a directory: {e.strerror}")
    present = [name for name in spec.archives() if (out / name).exists()]
    if present and not force:
        parser.error(f"{out} already has {', '.join(present)}; --force replaces them")
    for archive in _made_archives(spec, out):
        print(
            f"{archive.path}: {archive.images:,} images, {archive.size:,} bytes, "
            f"{archive.seconds:.1f} s",
            flush=True,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = SampleSpec()
    parser = argparse.ArgumentParser(
        prog="python -m beam_imagenet sample",
        description="Make archives in the official ILSVRC-2012 layout from drawn images, the odd "
        "ones (22 CMYK, 1 PNG) among them. The same seed and options give the same bytes.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for the archives")

    def number(name: str, default: int, help: str) -> None:
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{help} (%(default)s)"
        )

    number("train_images", defaults.train_images, "0, or 1000 and more: spread over the synsets")
    number("validation_images", defaults.validation_images, f"up to {MAX_VALIDATION_IMAGES}")
    number("test_images", defaults.test_images, f"up to {MAX_TEST_IMAGES}")
    number("image_bytes", defaults.image_bytes, "mean bytes an image; ImageNet's are 109600")
    number("seed", defaults.seed, "another seed gives other images")
    parser.add_argument(
        "--layout",
        choices=("flat", "folders"),
        default=defaults.layout,
        help="test images at the top of their archive, or in a directory test/ (%(default)s)",
    )
    number("processes", os.cpu_count() or 1, "processes that draw; all cores by default")
    parser.add_argument("--force", action="store_true", help="replace archives that are there")
    return parser


def _made_archives(spec: SampleSpec, out: Path) -> Iterator[WrittenArchive]:
    out.mkdir(parents=True, exist_ok=True)
    plan = {name: tuple(_tars(spec, name)) for name in spec.archives()}
    parts = [part for tars in plan.values() for tar in tars for part in tar.parts]
    drawn = _drawn(parts, spec)
    try:
        for name, tars in plan.items():
            start = time.monotonic()
            # Named by process, so that two runs never write into one file.
            partial = out / f".{name}.{os.getpid()}.partial"
            try:
                with partial.open("wb") as file:
                    if name == TRAIN_ARCHIVE:
                        _write_nested(file, tars, drawn)
                    else:
                        _write_tar(file, tars[0], drawn)
                size = partial.stat().st_size
                partial.replace(out / name)
            finally:
                partial.unlink(missing_ok=True)
            images = sum(len(part.names) for tar in tars for part in tar.parts)
            seconds = time.monotonic() - start
            yield WrittenArchive(path=out / name, images=images, size=size, seconds=seconds)
    finally:
        drawn.close()


def _tars(spec: SampleSpec, archive: str) -> Iterator[_Tar]:
    if archive == TRAIN_ARCHIVE:
        least, more = divmod(spec.train_images, labels.NUM_CLASSES)
        for label, wnid in enumerate(labels.synsets()):
            count = least + (label < more)
            yield _tar(f"{wnid}.tar", "", train_names(wnid, count=count))
        return
    split, count, folder = (
        ("val", spec.validation_images, "")
        if archive == VALIDATION_ARCHIVE
        else ("test", spec.test_images, "test/" if spec.layout == "folders" else "")
    )
    names = [f"ILSVRC2012_{split}_{number:08}.JPEG" for number in range(1, count + 1)]
    yield _tar(archive, folder, names)


def _tar(name: str, folder: str, names: Sequence[str]) -> _Tar:
    return _Tar(
        name=name,
        folder=folder,
        parts=tuple(
            _Part(folder=folder, names=tuple(names[start : start + _PART_IMAGES]))
            for start in range(0, len(names), _PART_IMAGES)
        ),
    )


def train_names(wnid: str, *, count: int) -> list[str]:
    """Names of a synset's images: its odd one's, and others whose numbers ascend with gaps."""
    odd = [_number(name) for name in _ODD_IMAGES if name.startswith(f"{wnid}_")]
    assert len(odd) <= count
    gaps = itertools.cycle(hashlib.blake2b(wnid.encode()).digest())
    ascending = itertools.accumulate(1 + gap % _NUMBER_STEP for gap in gaps)
    ordinary = (number for number in ascending if number not in odd)
    numbers = sorted([*odd, *itertools.islice(ordinary, count - len(odd))])
    return [f"{wnid}_{number}.JPEG" for number in numbers]


def _number(name: str) -> int:
    return int(name.removesuffix(".JPEG").split("_")[1])


def _write_nested(file: BinaryIO, tars: Iterable[_Tar], drawn: Iterator[bytes]) -> None:
    """Writes a tar of tars; a synset's header comes last, when its size is known."""
    for tar in tars:
        header = file.tell()
        file.write(bytes(tarfile.BLOCKSIZE))
        size = _write_tar(file, tar, drawn)
        file.seek(header)
        file.write(_header(tar.name, size=size))
        file.seek(header + tarfile.BLOCKSIZE + size)
    _write_end(file, start=0)


def _write_tar(file: BinaryIO, tar: _Tar, drawn: Iterator[bytes]) -> int:
    """Writes one tar from the next drawn parts; returns its size."""
    start = file.tell()
    if tar.folder:
        file.write(_header(tar.folder.rstrip("/"), size=0, directory=True))
    for _ in tar.parts:
        file.write(next(drawn))
    return _write_end(file, start=start)


def _write_end(file: BinaryIO, *, start: int) -> int:
    size = file.tell() - start + 2 * tarfile.BLOCKSIZE
    padded = -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    file.write(bytes(padded - size + 2 * tarfile.BLOCKSIZE))
    return padded


def _header(name: str, *, size: int, directory: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, _MTIME
    info.uid = info.gid = 1000
    info.uname = info.gname = _OWNER
    if directory:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _drawn(parts: Sequence[_Part], spec: SampleSpec) -> Generator[bytes, None, None]:
    """The members of each part as tar bytes, in order, a few parts ahead of the caller."""
    painter = drawing.make_painter(seed=spec.seed, image_bytes=spec.image_bytes)
    if spec.processes == 1:
        yield from (_draw_part(painter, part) for part in parts)
        return
    waiting: deque[Future[bytes]] = deque()
    # Spawned, not forked: a caller may have threads, and TensorFlow's do not survive a fork.
    with ProcessPoolExecutor(
        spec.processes,
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(painter,),
    ) as pool:
        try:
            for part in parts:
                waiting.append(pool.submit(_draw_part_in_worker, part))
                if len(waiting) >= spec.processes + _WAITING_PARTS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


_painter: drawing.Painter | None = None


def _start_worker(painter: drawing.Painter) -> None:
    global _painter
    _painter = painter
    # A pool's workers wait for tasks for ever when their parent is killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _draw_part_in_worker(part: _Part) -> bytes:
    assert _painter is not None
    return _draw_part(_painter, part)


def _draw_part(painter: drawing.Painter, part: _Part) -> bytes:
    chunks: list[bytes] = []
    for name in part.names:
        data = _draw(painter, name)
        chunks += (
            _header(part.folder + name, size=len(data)),
            data,
            bytes(-len(data) % tarfile.BLOCKSIZE),
        )
    return b"".join(chunks)


def _draw(painter: drawing.Painter, name: str) -> bytes:
    if name in labels.CMYK_IMAGES:
        return painter.cmyk(name, ycck=name in _YCCK_IMAGES)
    if name in labels.PNG_IMAGES:
        return painter.png(name)
    return painter.photograph(name)
