"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_imagenet import sample
from tests import commands, tars


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three archives, small: every synset, the CMYK images and the PNG included. Not to be changed."""
    folder = tmp_path_factory.mktemp("archives")
    spec = sample.SampleSpec(
        train_images=1100, validation_images=60, test_images=60, image_bytes=2000, processes=2
    )
    sample.make_archives(spec, folder)
    return folder


@pytest.fixture(scope="session")
def folder_archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validation archive, and a test archive that stores its images in a folder. Not to be changed."""
    folder = tmp_path_factory.mktemp("folder_archives")
    spec = sample.SampleSpec(
        train_images=0,
        validation_images=40,
        test_images=50,
        image_bytes=2000,
        layout="folders",
        processes=1,
    )
    sample.make_archives(spec, folder)
    return folder


@pytest.fixture(scope="session")
def photographs(archives: Path) -> dict[str, bytes]:
    """50 validation images by name. Not to be changed."""
    content = (archives / "ILSVRC2012_img_val.tar").read_bytes()
    return {
        name.decode(): content[offset : offset + size]
        for name, offset, size in tars.listed(content)[:50]
    }


@pytest.fixture
def target(photographs: dict[str, bytes], tmp_path: Path) -> commands.Target:
    """A validation and a test archive of a test's own, and a place for the dataset."""
    manual_dir = tmp_path / "manual"
    manual_dir.mkdir()
    test = {name.replace("_val_", "_test_"): data for name, data in photographs.items()}
    for name, members in (("val", photographs), ("test", test)):
        (manual_dir / f"ILSVRC2012_img_{name}.tar").write_bytes(tars.tar_of(members.items()))
    return commands.Target(manual_dir, tmp_path / "data")
