"""The dataset is TFDS's: held against TFDS's own builder on the same archives, and read by TFDS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import commands, tars

SHARDS = 3


def prepare_with_tfds(manual_dir: Path, data_dir: Path, *, num_shards: int | None) -> Path:
    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    builder.download_and_prepare(
        download_dir=data_dir / "downloads",
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, num_shards=num_shards),
    )
    return data_dir / commands.VERSION_FOLDER


def records(shard: Path) -> Iterator[tuple[bytes, bytes, int]]:
    """The three fields of each record, in order."""
    for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        assert set(feature) == {"file_name", "image", "label"}
        yield (
            feature["file_name"].bytes_list.value[0],
            feature["image"].bytes_list.value[0],
            feature["label"].int64_list.value[0],
        )


def assert_same_dataset(ours: Path, theirs: Path) -> None:
    shards = sorted(path.name for path in theirs.glob("*.tfrecord-*"))
    assert sorted(path.name for path in ours.glob("*.tfrecord-*")) == shards
    for shard in shards:
        assert list(records(ours / shard)) == list(records(theirs / shard)), shard
    splits = [
        {split["name"]: split for split in json.loads(path.read_text())["splits"]}
        for path in (ours / "dataset_info.json", theirs / "dataset_info.json")
    ]
    assert splits[0] == splits[1]


@pytest.fixture(scope="module")
def theirs(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_with_tfds(archives, tmp_path_factory.mktemp("theirs"), num_shards=SHARDS)


@pytest.fixture(scope="module")
def data_dir(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("ours")
    shards = ",".join(f"{split}:{SHARDS}" for split in ("train", "validation", "test"))
    commands.convert(manual_dir=archives, data_dir=data_dir, options=(f"--num_shards={shards}",))
    return data_dir


@pytest.mark.slow
def test_shards_order_and_fields_are_tfds_own(data_dir: Path, theirs: Path) -> None:
    ours = data_dir / commands.VERSION_FOLDER
    assert_same_dataset(ours, theirs)
    fixed = json.loads((ours / commands.RUN_FILE).read_text())["splits"][0]["fixes"]
    assert len(fixed) == 23


@pytest.mark.slow
def test_shard_count_and_folders_in_the_archive_are_tfds_own(
    folder_archives: Path, tmp_path: Path
) -> None:
    theirs = prepare_with_tfds(folder_archives, tmp_path / "theirs", num_shards=None)
    ours = commands.convert(
        manual_dir=folder_archives,
        data_dir=tmp_path / "ours",
        options=("--file_name=member",),
    )
    assert_same_dataset(ours, theirs)
    first = next(records(ours / "imagenet2012-test.tfrecord-00000-of-00001"))
    assert first[0].startswith(b"test/ILSVRC2012_test_")


def test_repacked_archives_give_the_official_names(folder_archives: Path, tmp_path: Path) -> None:
    ours = commands.convert(manual_dir=folder_archives, data_dir=tmp_path)
    names = [name for name, _, _ in records(ours / "imagenet2012-test.tfrecord-00000-of-00001")]
    assert sorted(names) == [b"ILSVRC2012_test_%08d.JPEG" % number for number in range(1, 51)]


@pytest.mark.slow
def test_our_bytes_are_deterministic_protobuf(data_dir: Path) -> None:
    for shard in (data_dir / commands.VERSION_FOLDER).glob("*.tfrecord-*"):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            assert record == example.SerializeToString(deterministic=True)


@pytest.mark.slow
def test_tfds_load_reads_slices_and_supervised_pairs(
    data_dir: Path, theirs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def names(dataset: Any) -> list[bytes]:
        return [example["file_name"] for example in tfds.as_numpy(dataset)]

    loaded = tfds.load("imagenet2012", split="train[:10%]", data_dir=data_dir)
    peer = tfds.builder_from_directory(theirs)
    assert names(loaded) == names(peer.as_dataset(split="train[:10%]"))
    assert len(loaded) == 110
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []

    image, label = next(
        iter(
            tfds.as_numpy(
                tfds.load("imagenet2012", split="validation", data_dir=data_dir, as_supervised=True)
            )
        )
    )
    assert image.ndim == 3
    assert 0 <= label < 1000


@pytest.mark.slow
def test_builder_from_directory_knows_everything(data_dir: Path, theirs: Path) -> None:
    ours = tfds.builder_from_directory(data_dir / commands.VERSION_FOLDER).info
    peer = tfds.builder_from_directory(theirs).info
    assert ours.features.to_json() == peer.features.to_json()
    assert ours.features["label"].names == peer.features["label"].names
    assert {name: ours.splits[name].num_examples for name in ours.splits} == {
        "train": 1100,
        "validation": 60,
        "test": 60,
    }
    assert ours.splits["train"].shard_lengths == peer.splits["train"].shard_lengths
    assert ours.dataset_size == peer.dataset_size
    assert ours.supervised_keys == ("image", "label")
    assert ours.citation == peer.citation
    assert ours.homepage == peer.homepage
    assert ours.full_name == "imagenet2012/5.1.0"
    assert ours.release_notes.keys() == peer.release_notes.keys()
    assert len(ours.description) > 200


@pytest.mark.slow
def test_version_5_0_0_is_read_back_without_a_test_split(archives: Path, tmp_path: Path) -> None:
    dataset = commands.convert(
        manual_dir=archives,
        data_dir=tmp_path,
        options=("--dataset_version=5.0.0",),
        version="5.0.0",
    )
    builder = tfds.builder("imagenet2012:5.0.0", data_dir=tmp_path)
    assert set(builder.info.splits) == {"train", "validation"}
    assert len(builder.as_dataset(split="train")) == 1100
    assert "5.1.0" not in json.loads((dataset / "dataset_info.json").read_text())["releaseNotes"]


def stamps_of_shards(dataset: Path) -> dict[str, tuple[int, int]]:
    return {name: stamp for name, stamp in commands.stamps(dataset).items() if ".tfrecord-" in name}


def entries(dataset: Path) -> dict[str, Any]:
    splits = json.loads((dataset / "dataset_info.json").read_text())["splits"]
    return {split["name"]: split for split in splits}


def file_names(data_dir: Path, split: str) -> list[bytes]:
    """What is in a split; TFDS takes its shards' records in turns, so their order is not looked at."""
    loaded = tfds.load("imagenet2012", split=split, data_dir=data_dir, download=False)
    return sorted(example["file_name"] for example in tfds.as_numpy(loaded))


@pytest.mark.slow
def test_a_split_is_added_to_a_dataset_that_tfds_made(
    archives: Path, theirs: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "data" / commands.VERSION_FOLDER
    shutil.copytree(theirs, dataset, ignore=shutil.ignore_patterns("*-test.*"))
    content = json.loads((dataset / "dataset_info.json").read_text())
    content["splits"] = [split for split in content["splits"] if split["name"] != "test"]
    (dataset / "dataset_info.json").write_text(json.dumps(content))
    shards, described = stamps_of_shards(dataset), entries(dataset)

    target = commands.Target(archives, tmp_path / "data")
    target.convert("--splits=test", f"--num_shards=test:{SHARDS}")
    now = entries(dataset)
    assert {split: now[split] for split in described} == described
    assert {name: stamps_of_shards(dataset)[name] for name in shards} == shards
    assert_same_dataset(dataset, theirs)
    for split, images in (("train", 1100), ("validation", 60), ("test", 60)):
        assert len(file_names(tmp_path / "data", split)) == images
    peer = json.loads((theirs / "dataset_info.json").read_text())
    ours = json.loads((dataset / "dataset_info.json").read_text())
    assert {**ours, "splits": 0} == {**peer, "splits": 0}


@pytest.mark.slow
def test_a_split_that_tfds_made_is_refused_or_replaced_by_the_pointer(
    archives: Path, theirs: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "data" / commands.VERSION_FOLDER
    shutil.copytree(theirs, dataset)
    shards, old = stamps_of_shards(dataset), (dataset / "dataset_info.json").read_bytes()
    before = commands.stamps(dataset)
    target = commands.Target(archives, tmp_path / "data")
    options = ("--splits=validation", "--num_shards=validation:2")
    assert "--overwrite" in target.refused(*options)
    assert "--overwrite" in target.refused(*options, "--fresh")
    assert commands.stamps(dataset) == before

    names = file_names(tmp_path / "data", "validation")
    target.convert(*options, "--overwrite")
    assert len(entries(dataset)["validation"]["shardLengths"]) == 2
    assert len(commands.written_since(before, dataset)) == 2
    assert file_names(tmp_path / "data", "validation") == names
    assert len(file_names(tmp_path / "data", "train")) == 1100
    assert target.clean().status == 0
    assert {name: stamps_of_shards(dataset)[name] for name in shards} == shards
    (dataset / "dataset_info.json").write_bytes(old)  # the way back is one small file
    assert file_names(tmp_path / "data", "validation") == names


@pytest.mark.slow
def test_tfds_reads_a_replaced_split_through_the_new_description_and_the_old(
    target: commands.Target,
) -> None:
    options = ("--splits=validation", "--num_shards=validation:5")
    target.convert(*options)
    old = (target.dataset / "dataset_info.json").read_bytes()
    names = file_names(target.data_dir, "validation")
    archive = target.manual_dir / "ILSVRC2012_img_val.tar"
    content = archive.read_bytes()
    members = [
        (name.decode(), content[start : start + size]) for name, start, size in tars.listed(content)
    ]
    archive.write_bytes(tars.tar_of(members[:40]))
    target.convert(*options, "--overwrite")
    assert len(file_names(target.data_dir, "validation")) == 40
    builder = tfds.builder_from_directory(target.dataset)
    assert len(builder.as_dataset(split="validation[:50%]")) == 20
    (target.dataset / "dataset_info.json").write_bytes(old)
    assert file_names(target.data_dir, "validation") == names
