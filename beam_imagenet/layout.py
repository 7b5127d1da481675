"""Where everything lies in a dataset's folder, and what its `dataset_info.json` says is published.

    dataset_info.json                          what readers open; whatever it points to is the dataset
    imagenet2012-train.tfrecord-00000-of-...   shards in TFDS's own place, of the split's first run
    train-FINGERPRINT/imagenet2012-train...    shards of a generation that replaced another
    quarantine/train-FINGERPRINT/NAME          images that were left out, each with NAME.reason.txt
    .beam_imagenet/train.claim                 the fingerprint of the run that TFDS's own place is for
    .beam_imagenet/train-FINGERPRINT/          a record for each shard written, and the split's result
    .beam_imagenet/tmp/                        files that are being written, and one for each run at work
    .beam_imagenet/lock                        locked for the moment of publishing

Reads; changes nothing. Knows nothing of Beam.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

from beam_imagenet import storage
from beam_imagenet.errors import ConflictError, StorageError
from beam_imagenet.model import DATASET_NAME, SPLITS, Source, shard_name
from beam_imagenet.tfrecord import FRAME_BYTES

DATASET_INFO = "dataset_info.json"
FEATURES = "features.json"
LABELS = "label.labels.txt"
RESULT = "result.json"
STATE = ".beam_imagenet"
QUARANTINE = "quarantine"
FILE_FORMAT = "tfrecord"

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_SPLIT = "|".join(SPLITS)
_GENERATION = re.compile(rf"({_SPLIT})-([0-9a-f]{{16}})")
_SHARD = re.compile(rf"{DATASET_NAME}-({_SPLIT})\.{FILE_FORMAT}-\d{{5}}-of-\d{{5}}")


def generation(split: str, fingerprint: str) -> str:
    """Name of the folders that belong to a split of this fingerprint."""
    return f"{split}-{fingerprint}"


def split_of_generation(name: str) -> tuple[str, str] | None:
    """Split and fingerprint of a folder's name, or None if it is no generation's."""
    match = _GENERATION.fullmatch(name)
    return (match[1], match[2]) if match else None


def claim_path(dataset: Path, split: str) -> Path:
    """The file that tells which fingerprint TFDS's own place is taken by."""
    return dataset / STATE / f"{split}.claim"


def claimed_by(dataset: Path, split: str) -> str | None:
    """The fingerprint that a split's place is taken by, or None."""
    content = storage.read_file(claim_path(dataset, split)) or b""
    return content.decode("ascii", "replace").strip() or None


def require_ours(dataset: Path, source: Source) -> None:
    """Makes sure that a split's place still is the run's own; under the lock.

    Raises:
        ConflictError: It is not.
    """
    folder = staging(dataset, source.split, source.fingerprint)
    if not folder.is_dir() or (
        not source.folder and claimed_by(dataset, source.split) != source.fingerprint
    ):
        raise ConflictError(
            f"Another run has taken over the {source.split} split in {dataset} (--fresh), or what this run "
            "wrote was removed (clean). Nothing was published. Run the same command again when nothing else "
            "works on that folder."
        )


def staging(dataset: Path, split: str, fingerprint: str) -> Path:
    """The folder of what a split's runs with this fingerprint have done."""
    return dataset / STATE / generation(split, fingerprint)


def scratch(dataset: Path) -> Path:
    """The folder of files that are being written."""
    return dataset / STATE / "tmp"


def lock(dataset: Path) -> Path:
    """The file that is locked for the moment of publishing."""
    return dataset / STATE / "lock"


def quarantine(dataset: Path, source: Source) -> Path:
    """The folder of images that were left out."""
    return dataset / QUARANTINE / generation(source.split, source.fingerprint)


def shards_in(folder: Path, split: str) -> list[Path]:
    """The shards of a split that lie in a folder, published or not."""
    return [
        path
        for path in storage.list_folder(folder)
        if (match := _SHARD.fullmatch(path.name)) and match[1] == split
    ]


def path_template(folder: str) -> str:
    """`filepathTemplate` of a split whose shards lie in `folder` of the dataset's folder."""
    return f"{folder}/{_TEMPLATE}" if folder else _TEMPLATE


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedSplit:
    """A split as `dataset_info.json` has it.

    Attributes:
        name: The split.
        folder: Where its shards lie, as in `Source.folder`; None for a place that is none of ours.
        fingerprint: Of the run that wrote it, or None if this package did not.
        num_bytes: Bytes of its serialised examples.
        shard_lengths: Examples of each shard.
    """

    name: str
    folder: str | None
    fingerprint: str | None
    num_bytes: int
    shard_lengths: tuple[int, ...]

    def is_whole(self, dataset: Path) -> bool:
        """Whether all its shards are there, and as long as they have to be together."""
        if self.folder is None:
            return False
        count = len(self.shard_lengths)
        sizes = [
            storage.size_if_there(
                dataset / self.folder / shard_name(self.name, index=index, num_shards=count)
            )
            for index in range(count)
        ]
        there = [size for size in sizes if size is not None]
        framing = FRAME_BYTES * sum(self.shard_lengths)
        return len(there) == count and sum(there) == self.num_bytes + framing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What is published in a dataset's folder.

    Attributes:
        content: `dataset_info.json` as it is, or None if there is none.
        version: The version that it says, or None.
        splits: What it says, by split.
    """

    content: bytes | None
    version: str | None
    splits: dict[str, PublishedSplit]

    @property
    def digest(self) -> str:
        """Tells one `dataset_info.json` from another; "" if there is none."""
        return hashlib.sha256(self.content).hexdigest() if self.content is not None else ""


def read_published(dataset: Path) -> Published:
    """Reads what is published.

    Raises:
        StorageError: There is a `dataset_info.json`, and it is none that can be understood.
    """
    path = dataset / DATASET_INFO
    content = storage.read_file(path)
    if content is None:
        return Published(content=None, version=None, splits={})
    try:
        fields = json.loads(content)
        if fields.get("fileFormat", FILE_FORMAT) != FILE_FORMAT:
            raise ValueError(f"its fileFormat is {fields['fileFormat']}, not {FILE_FORMAT}")
        if fields["name"] != DATASET_NAME:
            raise ValueError(f"its name is {fields['name']}, not {DATASET_NAME}")
        splits = [_split(dataset, entry) for entry in fields["splits"]]
        version = str(fields["version"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{path} is no description of a dataset that can be added to or replaced "
            f"({type(error).__name__}: {error}). "
            "Move it away, or choose another --data_dir."
        ) from error
    return Published(
        content=content, version=version, splits={split.name: split for split in splits}
    )


def _split(dataset: Path, entry: dict[str, object]) -> PublishedSplit:
    name = str(entry["name"])
    lengths = entry.get("shardLengths", [])
    if not isinstance(lengths, list):
        raise TypeError("shardLengths is no list")
    folder, slash, template = str(entry.get("filepathTemplate", _TEMPLATE)).rpartition("/")
    known = template == _TEMPLATE
    fingerprint = None
    if known and not slash:
        fingerprint = claimed_by(dataset, name)
    elif known and (parts := split_of_generation(folder)) and parts[0] == name:
        fingerprint = parts[1]
    return PublishedSplit(
        name=name,
        folder=folder if known else None,
        fingerprint=fingerprint,
        num_bytes=int(str(entry.get("numBytes", 0))),
        shard_lengths=tuple(int(length) for length in lengths),
    )
