"""The files of a dataset's folder: their names, and what its description says is published."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_imagenet import layout
from beam_imagenet.errors import ConflictError, StorageError
from beam_imagenet.model import SPLITS, Source, shard_name

FINGERPRINT = "0123456789abcdef"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def publish(dataset: Path, *splits: dict[str, Any], **fields: Any) -> bytes:
    """Writes a description as TFDS does, and returns it."""
    described = {"name": "imagenet2012", "version": "5.1.0", "splits": splits, **fields}
    content = json.dumps(described).encode()
    (dataset / "dataset_info.json").write_bytes(content)
    return content


def split_of(name: str = "train", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "filepathTemplate": TEMPLATE,
        "numBytes": "300",
        "shardLengths": ["3", "4"],
        **fields,
    }


def published(dataset: Path, name: str = "train") -> layout.PublishedSplit:
    return layout.read_published(dataset).splits[name]


def claim(dataset: Path, split: str, fingerprint: str) -> None:
    path = layout.claim_path(dataset, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{fingerprint}\n")


@given(split=st.sampled_from(SPLITS), fingerprint=st.from_regex("[0-9a-f]{16}", fullmatch=True))
def test_a_generations_folder_tells_its_split_and_fingerprint(split: str, fingerprint: str) -> None:
    assert layout.split_of_generation(layout.generation(split, fingerprint)) == (split, fingerprint)


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "train-old",
        "train-backup",
        "train-0123456789abcde",
        "train-0123456789abcdef0",
        "train-0123456789ABCDEF",
        "train-0123456789abcdef.bak",
        "my-train-0123456789abcdef",
        "extra-0123456789abcdef",
        "train-0123456789abcdef\n",
        "",
    ],
)
def test_other_names_are_no_generations(name: str) -> None:
    assert layout.split_of_generation(name) is None


def test_nothing_is_published_in_a_folder_without_a_description(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        found = layout.read_published(folder)
        assert (found.content, found.version, found.splits, found.digest) == (None, None, {}, "")


def test_a_description_is_read_with_its_digest(tmp_path: Path) -> None:
    content = publish(tmp_path, split_of(), split_of("test", shardLengths=["1"], numBytes="9"))
    found = layout.read_published(tmp_path)
    assert (found.content, found.version) == (content, "5.1.0")
    assert found.digest == hashlib.sha256(content).hexdigest()
    assert found.splits["test"] == layout.PublishedSplit(
        name="test", folder="", fingerprint=None, num_bytes=9, shard_lengths=(1,)
    )
    assert found.splits["train"].shard_lengths == (3, 4)


def test_a_split_in_tfds_own_place_is_the_claims(tmp_path: Path) -> None:
    publish(tmp_path, split_of(), split_of("test"))
    claim(tmp_path, "train", FINGERPRINT)
    assert published(tmp_path).fingerprint == FINGERPRINT
    assert published(tmp_path, "test").fingerprint is None


def test_a_split_in_a_generations_folder_is_the_folders(tmp_path: Path) -> None:
    folder = f"train-{FINGERPRINT}"
    publish(tmp_path, split_of(filepathTemplate=layout.path_template(folder)))
    claim(tmp_path, "train", "fedcba9876543210")
    found = published(tmp_path)
    assert (found.folder, found.fingerprint) == (folder, FINGERPRINT)


@pytest.mark.parametrize(
    "folder", ["elsewhere", "test-0123456789abcdef", "a/train-0123456789abcdef", "/train"]
)
def test_a_split_in_a_folder_of_somebody_elses_is_of_no_fingerprint(
    tmp_path: Path, folder: str
) -> None:
    publish(tmp_path, split_of(filepathTemplate=f"{folder}/{TEMPLATE}"))
    claim(tmp_path, "train", FINGERPRINT)
    found = published(tmp_path)
    assert (found.folder, found.fingerprint) == (folder, None)


def test_a_split_with_shards_of_other_names_lies_nowhere_that_we_know(tmp_path: Path) -> None:
    publish(tmp_path, split_of(filepathTemplate="{SPLIT}-{SHARD_INDEX}.data"))
    claim(tmp_path, "train", FINGERPRINT)
    found = published(tmp_path)
    assert (found.folder, found.fingerprint) == (None, None)
    assert not found.is_whole(tmp_path)


def test_a_split_without_a_template_lies_in_tfds_own_place(tmp_path: Path) -> None:
    publish(tmp_path, {"name": "train", "shardLengths": ["3"], "numBytes": "7"})
    assert published(tmp_path).folder == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'"x"',
        b"{}",
        b'{"name": "imagenet2012", "splits": []}',
        b'{"name": "imagenet2012", "version": "5.1.0"}',
    ],
)
def test_what_is_no_description_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dataset_info.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"dataset_info\.json is no description .* Move it away"):
        layout.read_published(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"splits": 3},
        {"splits": [3]},
        {"splits": [{}]},
        {"splits": [{"name": "train", "shardLengths": "12"}]},
        {"splits": [{"name": "train", "shardLengths": ["x"]}]},
        {"splits": [{"name": "train", "numBytes": "many"}]},
        {"fileFormat": "array_record"},
        {"name": "cifar10"},
    ],
)
def test_a_description_that_cannot_be_understood_is_an_error(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    publish(tmp_path)
    layout.read_published(tmp_path)
    publish(tmp_path, **fields)
    with pytest.raises(StorageError, match=r"dataset_info\.json is no description .* Move it away"):
        layout.read_published(tmp_path)


@pytest.mark.parametrize("folder", ["", f"train-{FINGERPRINT}"])
def test_a_split_is_whole_with_all_its_shards_in_their_sizes(tmp_path: Path, folder: str) -> None:
    publish(tmp_path, split_of(filepathTemplate=layout.path_template(folder)))
    found = published(tmp_path)
    shards = [
        tmp_path / folder / shard_name("train", index=index, num_shards=2) for index in range(2)
    ]
    shards[0].parent.mkdir(exist_ok=True)
    assert not found.is_whole(tmp_path)
    shards[0].write_bytes(bytes(100 + 3 * 16))
    assert not found.is_whole(tmp_path)
    shards[1].write_bytes(bytes(200 + 4 * 16))
    assert found.is_whole(tmp_path)
    shards[1].write_bytes(bytes(200 + 4 * 16 - 1))
    assert not found.is_whole(tmp_path)
    shards[0].unlink()
    shards[1].write_bytes(bytes(300 + 7 * 16))
    assert not found.is_whole(tmp_path)


def test_shards_of_a_split_are_told_by_tfds_names(tmp_path: Path) -> None:
    ours = [shard_name("train", index=index, num_shards=2) for index in range(2)]
    others = [
        shard_name("test", index=0, num_shards=1),
        "imagenet2012-train.tfrecord-00000-of-00002.bak",
        "imagenet2012-train.tfrecord-0-of-2",
        "imagenet2012-train.array_record-00000-of-00002",
        "imagenet2012_real-train.tfrecord-00000-of-00002",
    ]
    for name in [*others, *reversed(ours)]:
        (tmp_path / name).touch()
    assert [path.name for path in layout.shards_in(tmp_path, "train")] == ours


def test_each_split_and_fingerprint_has_places_of_its_own(tmp_path: Path) -> None:
    places = [
        place
        for split in SPLITS
        for fingerprint in (FINGERPRINT, "fedcba9876543210")
        for place in (
            layout.staging(tmp_path, split, fingerprint),
            layout.quarantine(
                tmp_path,
                Source(split=split, archive="a", size=1, modified=1, fingerprint=fingerprint),
            ),
            tmp_path / layout.generation(split, fingerprint),
        )
    ]
    assert len(set(places)) == len(places) == 18


def test_a_place_is_ours_by_its_claim_and_the_folder_of_its_records(tmp_path: Path) -> None:
    source = Source(split="train", archive="a", size=1, modified=1, fingerprint=FINGERPRINT)
    claim(tmp_path, "train", FINGERPRINT)
    with pytest.raises(ConflictError):
        layout.require_ours(tmp_path, source)
    layout.staging(tmp_path, "train", FINGERPRINT).mkdir()
    layout.require_ours(tmp_path, source)
    for content in ("fedcba9876543210", ""):
        claim(tmp_path, "train", content)
        with pytest.raises(ConflictError, match="Another run has taken over the train split"):
            layout.require_ours(tmp_path, source)
    # A generation's folder has its fingerprint in its name, so it needs no claim.
    layout.require_ours(tmp_path, dataclasses.replace(source, folder=f"train-{FINGERPRINT}"))


def test_a_claim_that_a_loss_of_power_emptied_is_nobodys(tmp_path: Path) -> None:
    claim(tmp_path, "train", "")
    assert layout.claimed_by(tmp_path, "train") is None
