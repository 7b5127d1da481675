"""ILSVRC-2012's label facts: synsets, validation labels, and the images known to need a colour fix.

Knows nothing of archives or of Beam. The numbers are TFDS's: a label is the position of its
WordNet id (wnid) in the sorted list of the 1,000 ids.
"""

from __future__ import annotations

import functools
from importlib import resources

NUM_CLASSES = 1000
UNLABELLED = -1
"""The label of every test image: their labels were never published (TFDS writes -1 as well)."""

IMAGES = {"train": 1_281_167, "validation": 50_000, "test": 100_000}
"""How many images ILSVRC-2012 has."""

CMYK_IMAGES = frozenset(
    f"{stem}.JPEG"
    for stem in (  # noqa: SIM905 - a name a line would be 22 lines
        "n01739381_1309 n02077923_14822 n02447366_23489 n02492035_15739 n02747177_10752 "
        "n03018349_4028 n03062245_4620 n03347037_9675 n03467068_12171 n03529860_11437 "
        "n03544143_17228 n03633091_5218 n03710637_5125 n03961711_5286 n04033995_2932 "
        "n04258138_17003 n04264628_27969 n04336792_7448 n04371774_5854 n04596742_4225 "
        "n07583066_647 n13037406_4650"
    ).split()
)
"""The 22 train images that are CMYK or YCCK JPEGs."""

PNG_IMAGES = frozenset({"n02105855_2933.JPEG"})
"""The one train image that is a PNG."""


def _lines(name: str) -> tuple[str, ...]:
    text = resources.files(__package__).joinpath("data", name).read_text(encoding="ascii")
    return tuple(text.split())


@functools.cache
def synsets() -> tuple[str, ...]:
    """The 1,000 WordNet ids in label order: `synsets()[0]` is `"n01440764"`, tench."""
    return _lines("synsets.txt")


@functools.cache
def label_of_synset() -> dict[str, int]:
    """Label (0 to 999) of each WordNet id."""
    return {wnid: label for label, wnid in enumerate(synsets())}


@functools.cache
def validation_labels() -> tuple[int, ...]:
    """Labels of the 50,000 validation images: item `n - 1` belongs to `ILSVRC2012_val_{n:08}.JPEG`."""
    labels = label_of_synset()
    return tuple(labels[wnid] for wnid in _lines("validation_synsets.txt"))
