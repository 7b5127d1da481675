"""Label facts, beside the files and lists that TFDS ships."""

from __future__ import annotations

import collections
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as tfds_builder

from beam_imagenet import labels


def tfds_lines(name: str) -> list[str]:
    path: Path = tfds.core.tfds_path("datasets/imagenet2012") / name
    return path.read_text().split()


def test_labels_are_positions_in_tfdss_list_of_synsets() -> None:
    assert list(labels.synsets()) == tfds_lines("labels.txt")
    assert list(labels.label_of_synset().items()) == [
        (wnid, label) for label, wnid in enumerate(labels.synsets())
    ]


def test_synsets_are_a_thousand_sorted_and_unique() -> None:
    assert len(labels.synsets()) == labels.NUM_CLASSES == 1000
    assert list(labels.synsets()) == sorted(set(labels.synsets()))
    assert (labels.synsets()[0], labels.synsets()[-1]) == ("n01440764", "n15075141")


def test_validation_labels_are_tfdss() -> None:
    wnids = [labels.synsets()[label] for label in labels.validation_labels()]
    assert wnids == tfds_lines("validation_labels.txt")
    assert wnids[:5] == ["n01751748", "n09193705", "n02105855", "n04263257", "n03125729"]


def test_validation_has_fifty_images_of_each_class() -> None:
    counts = collections.Counter(labels.validation_labels())
    assert counts == dict.fromkeys(range(1000), 50)


def test_images_known_to_need_a_fix_are_tfdss() -> None:
    assert sorted(labels.CMYK_IMAGES) == sorted(tfds_builder.CMYK_IMAGES)
    assert sorted(labels.PNG_IMAGES) == sorted(tfds_builder.PNG_IMAGES)
    for name in labels.CMYK_IMAGES | labels.PNG_IMAGES:
        assert name.partition("_")[0] in labels.label_of_synset()
