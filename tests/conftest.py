"""Fixtures that several tests share; what they make is never changed by a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_imagenet import sample


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three archives, small: every synset, the CMYK images and the PNG included."""
    folder = tmp_path_factory.mktemp("archives")
    spec = sample.SampleSpec(
        train_images=1100, validation_images=60, test_images=60, image_bytes=2000, processes=2
    )
    sample.make_archives(spec, folder)
    return folder


@pytest.fixture(scope="session")
def folder_archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validation archive, and a test archive that stores its images in a folder."""
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
