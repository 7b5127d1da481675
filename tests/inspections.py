"""Archives to inspect, and a world in which they are official or have no room."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from beam_imagenet import inspection, labels
from beam_imagenet.inspection import Inspection, Official
from beam_imagenet.model import Source
from tests.inventories import validation_name
from tests.tars import tar_of, train_tar

FILES = {
    "train": "ILSVRC2012_img_train.tar",
    "validation": "ILSVRC2012_img_val.tar",
    "test": "ILSVRC2012_img_test.tar",
}
"""The official name of each split's archive."""


def source_of(path: Path, split: str) -> Source:
    """An archive as a run finds it."""
    status = path.stat()
    return Source(split=split, archive=str(path), size=status.st_size, modified=status.st_mtime_ns)


def sample(archives: Path, split: str) -> Source:
    """One of the archives of the fixture."""
    return source_of(archives / FILES[split], split)


def validation_tar(numbers: Iterable[int]) -> bytes:
    """A validation archive of the images with these numbers, in this order."""
    return tar_of([(validation_name(number), b"data") for number in numbers])


def whole_train(*, leave_out: int = 0) -> bytes:
    """A train archive of one image a synset."""
    return train_tar(
        [
            (f"{wnid}.tar", [(f"{wnid}_1.JPEG", b"data")])
            for wnid in labels.synsets()[: 1000 - leave_out]
        ]
    )


def sha256(source: Source) -> str:
    """The checksum of an archive, without the code under test."""
    return hashlib.sha256(Path(source.archive).read_bytes()).hexdigest()


def nothing(stage: str, done: int) -> None:
    """Progress that nobody sees."""


def fully(source: Source) -> Inspection:
    """The full check, told to nobody."""
    return inspection.full(source, nothing)


def make_official(
    monkeypatch: pytest.MonkeyPatch,
    source: Source,
    *,
    size: int | None = None,
    checksum: str = "0" * 64,
) -> None:
    """Puts an archive's size or checksum into the table of official ones."""
    table: Mapping[str, Official] = {
        **inspection.official_archives(),
        source.split: Official(size=size, sha256=checksum),
    }
    monkeypatch.setattr(inspection, "official_archives", lambda: table)


def has_free(monkeypatch: pytest.MonkeyPatch, free: int) -> list[Path]:
    """Makes every disk have so much room; returns where it was asked for."""
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked
