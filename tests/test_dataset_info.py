"""The dataset's description, read with TFDS's own code; and the reconciliation before it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core import dataset_info as tfds_info
from tensorflow_datasets.core.proto import dataset_info_pb2
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as tfds_builder

from beam_imagenet import dataset_info
from beam_imagenet.errors import ReconcileError
from beam_imagenet.model import (
    Checks,
    ColorFix,
    Finding,
    Job,
    PlannedShard,
    ShardResult,
    Source,
    SplitPlan,
)

SPLITS = {"validation": [3, 4], "train": [10, 11, 12], "test": [1]}
FIX = ColorFix(file_name="n02105855_2933.JPEG", kind="PNG")
BAD = Finding(file_name="n01440764_1.JPEG", reason="it is empty")


def planned_shard(split: str, index: int) -> PlannedShard:
    lengths = SPLITS[split]
    return PlannedShard(
        shard=f"imagenet2012-{split}.tfrecord-{index:05}-of-{len(lengths):05}",
        num_examples=lengths[index],
        num_bytes=lengths[index] * 1000 + index,
        names_digest=f"{split}{index}",
    )


def job_of(
    version: str = "5.1.0", *, on_bad_image: str = "fail", folders: dict[str, str] | None = None
) -> Job:
    return Job(
        dataset_dir="/data/imagenet2012/5.1.0",
        version=version,
        keep_member_path=False,
        checks=Checks(on_bad_image=on_bad_image),
        sources=tuple(
            Source(
                split=split,
                archive=f"{split}.tar",
                size=1,
                modified=1,
                folder=(folders or {}).get(split, ""),
            )
            for split in SPLITS
        ),
    )


PLANS = [
    SplitPlan(
        split=split,
        num_classes=5,
        shards=tuple(planned_shard(split, index) for index in range(len(lengths))),
    )
    for split, lengths in SPLITS.items()
]
RESULTS = [
    ShardResult(
        split=plan.split,
        shard=shard.shard,
        num_examples=shard.num_examples,
        num_bytes=shard.num_bytes,
        file_bytes=shard.num_bytes + 16 * shard.num_examples,
        names_digest=shard.names_digest,
        fixes=(),
        level="header",
        bad=(),
        suspect=(),
        seconds=1.0,
    )
    for plan in PLANS
    for shard in plan.shards
]


def description(version: str = "5.1.0") -> bytes:
    return dataset_info.dataset_info_json(job_of(version), PLANS[::-1], RESULTS[::-1])


def proto(version: str = "5.1.0") -> Any:
    """Parsed by protobuf, which refuses fields that TFDS's DatasetInfo does not have."""
    return json_format.Parse(description(version), dataset_info_pb2.DatasetInfo())


@pytest.fixture(params=["5.1.0", "5.0.0"])
def version(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


@pytest.fixture
def builder(tmp_path: Path, version: str) -> tfds.core.DatasetBuilder:
    return tfds_builder.Builder(data_dir=tmp_path, version=version)


def test_the_description_is_what_tfds_says_of_the_dataset(
    version: str, builder: tfds.core.DatasetBuilder
) -> None:
    ours, theirs = proto(version), builder.info.as_proto
    for field in ("name", "version", "module_name", "file_format", "supervised_keys"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.citation.strip() == theirs.citation.strip()
    assert list(ours.location.urls) == list(theirs.location.urls) == [builder.info.homepage]
    assert "ILSVRC" in ours.description


def test_release_notes_are_of_the_versions_that_tfds_notes() -> None:
    versions = set(tfds_builder.Builder.RELEASE_NOTES)
    assert set(proto("5.1.0").release_notes) == versions
    assert set(proto("5.0.0").release_notes) == versions - {"5.1.0"}


def test_splits_are_described_in_the_usual_order_with_counts_as_written() -> None:
    splits = proto().splits
    assert [split.name for split in splits] == ["train", "validation", "test"]
    for split in splits:
        assert list(split.shard_lengths) == SPLITS[split.name]
        written = [result.num_bytes for result in RESULTS if result.split == split.name]
        assert split.num_bytes == sum(written)


def test_bytes_are_those_written_not_those_planned() -> None:
    fixed = dataclasses.replace(RESULTS[0], num_bytes=RESULTS[0].num_bytes + 77, fixes=(FIX,))
    content = dataset_info.dataset_info_json(job_of(), PLANS, [fixed, *RESULTS[1:]])
    after = json_format.Parse(content, dataset_info_pb2.DatasetInfo())
    assert after.splits[1].name == "validation"
    assert after.splits[1].num_bytes == proto().splits[1].num_bytes + 77


def test_the_files_open_as_a_tfds_dataset(tmp_path: Path, version: str) -> None:
    folder = tmp_path / "imagenet2012" / version
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_bytes(description(version))
    (folder / "features.json").write_bytes(dataset_info.features_json())
    (folder / "label.labels.txt").write_bytes(dataset_info.label_names())
    assert tfds_info.read_proto_from_builder_dir(folder) == proto(version)
    opened = tfds.builder_from_directory(folder)
    assert opened.info.full_name == f"imagenet2012/{version}"
    assert {name: split.shard_lengths for name, split in opened.info.splits.items()} == SPLITS
    for plan in PLANS:
        names = [Path(path).name for path in opened.info.splits[plan.split].filepaths]
        assert names == [shard.shard for shard in plan.shards]
    assert (
        opened.info.features["label"].names
        == tfds_builder.Builder(data_dir=tmp_path / "empty").info.features["label"].names
    )
    assert opened.info.supervised_keys == ("image", "label")


def test_features_are_those_of_tfds(tmp_path: Path, builder: tfds.core.DatasetBuilder) -> None:
    (tmp_path / "features.json").write_bytes(dataset_info.features_json())
    (tmp_path / "label.labels.txt").write_bytes(dataset_info.label_names())
    features = tfds.features.FeaturesDict.from_config(tmp_path)
    theirs = builder.info.features
    assert features.to_json() == theirs.to_json()
    assert features.get_serialized_info() == theirs.get_serialized_info()
    assert features.get_tensor_info() == theirs.get_tensor_info()
    assert features["label"].names == theirs["label"].names


def test_label_names_are_the_file_that_tfds_writes(
    tmp_path: Path, builder: tfds.core.DatasetBuilder
) -> None:
    builder.info.features.save_config(tmp_path)
    [written] = tmp_path.glob("*.txt")
    assert written.name == "label.labels.txt"
    assert dataset_info.label_names() == written.read_bytes()


def test_the_description_does_not_depend_on_the_order_of_arrival() -> None:
    assert dataset_info.dataset_info_json(job_of(), PLANS, RESULTS) == description()
    assert json.loads(description())["splits"][0]["name"] == "train"


def test_what_was_written_as_planned_is_accepted_in_any_order() -> None:
    dataset_info.reconcile(job_of(), PLANS, RESULTS)
    dataset_info.reconcile(job_of(), PLANS[::-1], RESULTS[::-1])


def test_a_converted_image_may_change_the_bytes_of_its_shard() -> None:
    fixed = dataclasses.replace(RESULTS[2], num_bytes=1, fixes=(FIX,))
    dataset_info.reconcile(job_of(), PLANS, [*RESULTS[:2], fixed, *RESULTS[3:]])


def first_result(**changes: Any) -> list[ShardResult]:
    return [dataclasses.replace(RESULTS[0], **changes), *RESULTS[1:]]


FOREIGN = dataclasses.replace(RESULTS[0], shard="imagenet2012-validation.tfrecord-00002-of-00003")
EXTRA = dataclasses.replace(PLANS[0], split="extra")
NAME = RESULTS[0].shard
DIFFERENT: dict[str, tuple[list[SplitPlan], list[ShardResult], str]] = {
    "a shard missing": (PLANS, RESULTS[1:], f"shard {NAME} never arrived"),
    "two shards missing": (PLANS, RESULTS[2:], rf"shard {NAME} never arrived \(and 1 more\)"),
    "no shard": (PLANS, [], r"never arrived \(and 5 more\)"),
    "a shard doubled": (PLANS, [*RESULTS, RESULTS[0]], f"shard {NAME} arrived more than once"),
    "a foreign shard": (PLANS, [*RESULTS, FOREIGN], f"{FOREIGN.shard} .* was never planned"),
    "a foreign shard instead": (PLANS, [FOREIGN, *RESULTS[1:]], f"shard {NAME} never arrived"),
    "another count": (PLANS, first_result(num_examples=2), "planned with records 3, .* with 2"),
    "other bytes": (PLANS, first_result(num_bytes=2999), "planned with bytes 3000, .* with 2999"),
    "other names": (PLANS, first_result(names_digest="x"), f"shard {NAME} was planned with digest"),
    "other names, one converted": (PLANS, first_result(names_digest="x", fixes=(FIX,)), "digest"),
    "fewer records, one converted": (PLANS, first_result(num_examples=2, fixes=(FIX,)), "records 3"),
    "a plan missing": (PLANS[1:], RESULTS[2:], "the plan of split validation never arrived"),
    "no plan": ([], [], r"the plan of split test never arrived \(and 2 more\)"),
    "a plan doubled": ([*PLANS, PLANS[0]], RESULTS, "split validation arrived more than once"),
    "a foreign plan": ([*PLANS, EXTRA], RESULTS, "split extra arrived .* was never planned"),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_from_the_plan_is_refused(case: str) -> None:
    plans, results, message = DIFFERENT[case]
    with pytest.raises(ReconcileError, match=message):
        dataset_info.reconcile(job_of(), plans, results)


def test_images_left_out_count_as_dealt_with_and_change_bytes() -> None:
    job = job_of(on_bad_image="quarantine")
    left_out = first_result(num_examples=2, num_bytes=2000, bad=(BAD,))
    dataset_info.reconcile(job, PLANS, left_out)
    for count in (1, 3):
        with pytest.raises(ReconcileError, match=f"records 3, but written with {count + 1}"):
            dataset_info.reconcile(
                job, PLANS, first_result(num_examples=count, num_bytes=2000, bad=(BAD,))
            )


def test_bad_images_that_are_kept_change_nothing() -> None:
    job = job_of(on_bad_image="keep")
    dataset_info.reconcile(job, PLANS, first_result(bad=(BAD,)))
    for changes in ({"num_examples": 2}, {"num_bytes": 2000}):
        with pytest.raises(ReconcileError):
            dataset_info.reconcile(job, PLANS, first_result(bad=(BAD,), **changes))


def test_suspect_images_are_records_like_others() -> None:
    dataset_info.reconcile(job_of(), PLANS, first_result(suspect=(BAD,)))
    with pytest.raises(ReconcileError, match="records 3"):
        dataset_info.reconcile(job_of(), PLANS, first_result(suspect=(BAD,), num_examples=2))


def test_shard_lengths_are_those_written_not_those_planned() -> None:
    left_out = first_result(num_examples=2, num_bytes=2000, bad=(BAD,))
    content = dataset_info.dataset_info_json(job_of(on_bad_image="quarantine"), PLANS, left_out)
    described = json_format.Parse(content, dataset_info_pb2.DatasetInfo())
    assert list(described.splits[1].shard_lengths) == [2, 4]


def test_a_split_that_replaced_another_is_pointed_to_in_its_folder() -> None:
    folder = "train-0123456789abcdef"
    content = dataset_info.dataset_info_json(job_of(folders={"train": folder}), PLANS, RESULTS)
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    templates = [split["filepathTemplate"] for split in json.loads(content)["splits"]]
    assert templates == [f"{folder}/{template}", template, template]


def test_splits_of_others_stay_as_they_are_with_all_else_that_is_said() -> None:
    """A dataset that is there may have been described by another program, in its own words."""
    foreign: dict[str, Any] = {
        "name": "imagenet2012",
        "description": "theirs",
        "downloadSize": "7",
        "splits": [
            {"name": "mine", "shardLengths": ["9"], "numBytes": "1", "statistics": {"a": 1}},
            {"name": "train", "shardLengths": ["1"], "numBytes": "2"},
        ],
    }
    job = job_of()
    for split in ("test", "train"):
        job = dataclasses.replace(
            job, sources=tuple(source for source in job.sources if source.split != split)
        )
    [plan] = (plan for plan in PLANS if plan.split == "validation")
    published = json.dumps(foreign).encode()
    content = dataset_info.dataset_info_json(job, [plan], RESULTS[:2], published=published)
    found = json.loads(content)
    assert [split["name"] for split in found["splits"]] == ["train", "validation", "mine"]
    assert found["splits"][::2] == foreign["splits"][::-1]
    assert {key: found[key] for key in found if key != "splits"} == {
        key: foreign[key] for key in foreign if key != "splits"
    }


def test_a_dataset_whose_splits_are_all_replaced_is_described_anew() -> None:
    old = dataset_info.dataset_info_json(job_of("5.0.0"), PLANS, RESULTS)
    again = dataset_info.dataset_info_json(job_of(), PLANS, RESULTS, published=old)
    assert again == description()
