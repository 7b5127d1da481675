"""Options are checked before anything starts, and what is wrong with one is said."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import DirectOptions, WorkerOptions

from beam_imagenet import options
from beam_imagenet.errors import UsageError
from beam_imagenet.model import Checks, Job, ShardResult, Source
from beam_imagenet.target import Target


def job(*arguments: str) -> Job:
    return options.job_from_options(options.parse(arguments))


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--data_dri=x", "--data_dir"),
        ("--num_shard=train:2", "--num_shards"),
        ("--direct_num_worker=2", "--direct_num_workers"),
        ("--runer=DirectRunner", "--runner"),
        ("--max_num_worker=4", "--max_num_workers"),
        ("train", "--train"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(option: str, nearest: str) -> None:
    with pytest.raises(UsageError) as refused:
        options.parse(["--verbose", option])
    assert f"Unknown option {option.partition('=')[0]}" in str(refused.value)
    assert f"{nearest}." in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--splits=training",), "nearest known one is train"),
        (("--splits=test", "--dataset_version=5.0.0"), "5.1.0 has"),
        (("--splits=",), "names no split"),
        (("--splits=,",), "names no split"),
        (("--dataset_version=4.0.0",), "5.1.0"),
        (("--num_shards=",), "SPLIT:N"),
        (("--num_shards=train:2,",), "SPLIT:N"),
        (("--direct_num_workers=-1",), "negative"),
        (("--num_shards=train",), "SPLIT:N"),
        (("--num_shards=train:0",), "SPLIT:N"),
        (("--num_shards=train:-1",), "SPLIT:N"),
        (("--num_shards=train:2,train:3",), "each once"),
        (("--num_shards=tests:2",), "tests:2"),
        (("--num_shards=train:2", "--splits=test"), "a split that is converted (test)"),
        (("--file_name=path",), "member"),
        (("--direct_num_workers=many",), "direct_num_workers"),
        (("--data_dir=gs://bucket/data",), "file system"),
        (("--train=/nowhere/train.tar",), "no such file"),
        (("--direct_running_mode=multi_threading",), "loses elements"),
        (("--check_images=full",), "decode"),
        (("--on_bad_image=skip",), "quarantine"),
        (("--max_bad_images=-1",), "number of 0 or more"),
        (("--data_dir=",), "is empty"),
        (("--manual_dir=",), "is empty"),
        (("--max_bad_images=few",), "number of 0 or more"),
    ],
)
def test_a_wrong_value_is_explained(
    archives: Path, tmp_path: Path, arguments: tuple[str, ...], part: str
) -> None:
    with pytest.raises(UsageError) as refused:
        job(f"--manual_dir={archives}", f"--data_dir={tmp_path}", *arguments)
    assert part in str(refused.value)


def test_a_split_whose_archive_is_not_there_is_refused(archives: Path, tmp_path: Path) -> None:
    os.symlink(archives / "ILSVRC2012_img_val.tar", tmp_path / "ILSVRC2012_img_val.tar")
    with pytest.raises(UsageError) as refused:
        job(f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}", "--splits=train,validation")
    assert "ILSVRC2012_img_train.tar" in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_an_archive_of_a_split_that_is_not_converted_is_refused(
    archives: Path, tmp_path: Path
) -> None:
    test = archives / "ILSVRC2012_img_test.tar"
    for option in ("--dataset_version=5.0.0", "--splits=train"):
        with pytest.raises(UsageError, match="--test names an archive of a split"):
            job(f"--manual_dir={archives}", f"--data_dir={tmp_path}", f"--test={test}", option)


def test_beams_options_pass_through() -> None:
    parsed = options.parse(["--direct_num_workers=5", "--max_num_workers=7", "--splits=train"])
    assert parsed.view_as(DirectOptions).direct_num_workers == 5
    assert parsed.view_as(WorkerOptions).max_num_workers == 7
    assert parsed.view_as(options.ImageNetOptions).splits == "train"


def test_all_cores_work_in_processes_unless_something_else_is_asked_for() -> None:
    direct = options.parse([]).view_as(DirectOptions)
    assert (direct.direct_running_mode, direct.direct_num_workers) == ("multi_processing", 0)
    direct = options.parse(["--direct_running_mode=in_memory"]).view_as(DirectOptions)
    assert (direct.direct_running_mode, direct.direct_num_workers) == ("in_memory", 1)


def test_the_job_says_what_was_asked_for(archives: Path, tmp_path: Path) -> None:
    found = job(
        f"--manual_dir={archives}",
        f"--data_dir={tmp_path}",
        "--splits=test,train",
        "--num_shards=train:256",
        "--file_name=member",
    )
    assert [source.split for source in found.sources] == ["train", "test"]
    assert [source.num_shards for source in found.sources] == [256, None]
    train = archives / "ILSVRC2012_img_train.tar"
    assert found.sources[0].archive == str(train)
    assert found.sources[0].size == train.stat().st_size
    assert found.sources[0].modified == train.stat().st_mtime_ns
    assert all(re.fullmatch("[0-9a-f]{16}", source.fingerprint) for source in found.sources)
    assert found.keep_member_path
    assert found.dataset_dir == str(tmp_path / "imagenet2012" / "5.1.0")


def test_the_job_says_how_images_are_checked(archives: Path, tmp_path: Path) -> None:
    where = (f"--manual_dir={archives}", f"--data_dir={tmp_path}")
    assert job(*where).checks == Checks(
        level="header", on_bad_image="fail", max_bad_images=100, strict=False
    )
    found = job(
        *where, "--check_images=none", "--on_bad_image=keep", "--max_bad_images=0", "--strict"
    )
    assert found.checks == Checks(level="none", on_bad_image="keep", max_bad_images=0, strict=True)


def test_a_run_begins_with_what_it_found(tmp_path: Path) -> None:
    source = Source(split="train", archive="/a/train.tar", size=147_897_477_120, modified=1)
    written = ShardResult(
        split="train",
        shard="imagenet2012-train.tfrecord-00003-of-01024",
        num_examples=1,
        num_bytes=1,
        file_bytes=1,
        names_digest="",
        fixes=(),
        level="header",
        bad=(),
        suspect=(),
        seconds=1.0,
    )
    asked = Job(
        dataset_dir="/data/imagenet2012/5.1.0",
        version="5.1.0",
        keep_member_path=False,
        checks=Checks(),
        sources=(source,),
    )
    found = Target(job=asked, complete=("test",), kept={"train": [written] * 612}, bytes_there=0)
    assert options.describe(found).splitlines() == [
        "train       /a/train.tar  (147.9 GB)",
        "test        is there already, and stays as it is",
        "dataset     /data/imagenet2012/5.1.0",
        "train       612 of 1,024 shards kept",
    ]


def test_tfds_data_dir_is_the_default_as_in_tfds(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert job(f"--manual_dir={archives}").dataset_dir == str(tmp_path / "imagenet2012" / "5.1.0")
    other = job(f"--manual_dir={archives}", f"--data_dir={tmp_path}/other")
    assert other.dataset_dir == str(tmp_path / "other" / "imagenet2012" / "5.1.0")
