"""Records of what was written: read back as they were, and worth nothing when damaged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beam_imagenet import layout, records
from beam_imagenet.model import (
    CHECK_LEVELS,
    Checks,
    ColorFix,
    Finding,
    ShardResult,
    Source,
    shard_name,
)
from beam_imagenet.summary import SplitSummary

SOURCE = Source(split="train", archive="a.tar", size=1, modified=1, fingerprint="0123456789abcdef")
SHARD = shard_name("train", index=3, num_shards=8)
FIX = ColorFix(file_name="n02105855_2933.JPEG", kind="PNG")
BAD = Finding(file_name="n01440764_1.JPEG", reason="it is empty")
RESULT = ShardResult(
    split="train",
    shard=SHARD,
    num_examples=2,
    num_bytes=68,
    file_bytes=100,
    names_digest="digest",
    fixes=(FIX,),
    level="header",
    bad=(),
    suspect=(BAD,),
    seconds=0.5,
)
QUARANTINE = Checks(on_bad_image="quarantine")

texts = st.text(max_size=20)
counts = st.integers(0, 1 << 50)
findings = st.lists(st.builds(Finding, file_name=texts, reason=texts), max_size=3).map(tuple)
fixes = st.lists(st.builds(ColorFix, file_name=texts, kind=texts), max_size=3).map(tuple)
levels = st.sampled_from(CHECK_LEVELS)
seconds = st.floats(0, 1e9)
results = st.builds(
    ShardResult,
    split=st.just("train"),
    shard=st.just(SHARD),
    num_examples=counts,
    num_bytes=counts,
    file_bytes=st.just(100),
    names_digest=st.just("digest"),
    fixes=fixes,
    level=levels,
    bad=findings,
    suspect=findings,
    seconds=seconds,
)
summaries = st.builds(
    SplitSummary,
    split=st.just("train"),
    fingerprint=st.just(SOURCE.fingerprint),
    images=counts,
    num_bytes=counts,
    shards=counts,
    classes=counts,
    fixes=fixes,
    level=levels,
    bad=findings,
    bad_kept=st.booleans(),
    suspect=findings,
    suspicions=st.lists(texts, max_size=3).map(tuple),
    worker_seconds=seconds,
    kept_shards=counts,
    kept_bytes=counts,
    finished=seconds,
)
# The folder of a function is made once, and each example writes all that it reads.
same_folder = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset's folder with a shard of 100 bytes, and the folders of runs."""
    layout.staging(tmp_path, "train", SOURCE.fingerprint).mkdir(parents=True)
    layout.scratch(tmp_path).mkdir()
    (tmp_path / SHARD).write_bytes(bytes(100))
    return tmp_path


def find(dataset: Path, *, checks: Checks = QUARANTINE, digest: str = "digest") -> Any:
    return records.find(SOURCE, SHARD, dataset=dataset, checks=checks, names_digest=digest)


def record_path(dataset: Path) -> Path:
    [path] = layout.staging(dataset, "train", SOURCE.fingerprint).iterdir()
    return path


@given(result=results)
@same_folder
def test_a_shards_record_reads_back_as_it_was_written(dataset: Path, result: ShardResult) -> None:
    records.keep(result, SOURCE, dataset=dataset)
    checks = Checks(level=result.level, on_bad_image="quarantine")
    assert find(dataset, checks=checks) == result
    assert records.kept(SOURCE, dataset=dataset, checks=checks) == [result]


@given(row=summaries)
@same_folder
def test_a_splits_record_reads_back_as_it_was_written(dataset: Path, row: SplitSummary) -> None:
    records.keep_summary(row, dataset=dataset)
    assert records.find_summary("train", SOURCE.fingerprint, dataset=dataset) == row


def test_there_is_no_record_of_what_was_not_written(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    assert records.kept(SOURCE, dataset=tmp_path, checks=QUARANTINE) == []
    assert records.find_summary("train", SOURCE.fingerprint, dataset=tmp_path) is None


def test_a_record_counts_for_its_fingerprint_alone(dataset: Path) -> None:
    records.keep(RESULT, SOURCE, dataset=dataset)
    other = dataclasses.replace(SOURCE, fingerprint="fedcba9876543210")
    found = records.find(other, SHARD, dataset=dataset, checks=QUARANTINE, names_digest="digest")
    assert found is None
    assert records.kept(other, dataset=dataset, checks=QUARANTINE) == []


def test_a_record_counts_for_the_same_names_alone(dataset: Path) -> None:
    records.keep(RESULT, SOURCE, dataset=dataset)
    assert find(dataset) == RESULT
    assert find(dataset, digest="another") is None


@pytest.mark.parametrize("size", [None, 0, 99, 101])
def test_a_record_counts_with_its_shard_alone(dataset: Path, size: int | None) -> None:
    records.keep(RESULT, SOURCE, dataset=dataset)
    (dataset / SHARD).unlink()
    if size is not None:
        (dataset / SHARD).write_bytes(bytes(size))
    assert find(dataset) is None
    assert records.kept(SOURCE, dataset=dataset, checks=QUARANTINE) == []


def test_a_shard_is_looked_for_in_its_splits_folder(dataset: Path) -> None:
    moved = dataclasses.replace(SOURCE, folder=f"train-{SOURCE.fingerprint}")
    records.keep(RESULT, moved, dataset=dataset)
    assert records.kept(moved, dataset=dataset, checks=QUARANTINE) == []
    (dataset / moved.folder).mkdir()
    (dataset / SHARD).rename(dataset / moved.folder / SHARD)
    assert records.kept(moved, dataset=dataset, checks=QUARANTINE) == [RESULT]


@pytest.mark.parametrize("was", CHECK_LEVELS)
@pytest.mark.parametrize("asked", CHECK_LEVELS)
def test_a_shard_is_kept_if_it_was_looked_at_as_closely_as_is_asked(
    dataset: Path, was: str, asked: str
) -> None:
    records.keep(dataclasses.replace(RESULT, level=was), SOURCE, dataset=dataset)
    close_enough = CHECK_LEVELS.index(was) >= CHECK_LEVELS.index(asked)
    assert (find(dataset, checks=Checks(level=asked)) is not None) is close_enough


@pytest.mark.parametrize(
    ("on_bad_image", "kept"), [("fail", False), ("quarantine", True), ("keep", True)]
)
def test_a_shard_with_bad_images_is_not_kept_by_a_job_that_stops_at_one(
    dataset: Path, on_bad_image: str, kept: bool
) -> None:
    records.keep(dataclasses.replace(RESULT, bad=(BAD,)), SOURCE, dataset=dataset)
    assert (find(dataset, checks=Checks(on_bad_image=on_bad_image)) is not None) is kept


def without(field: str) -> bytes:
    fields = dataclasses.asdict(RESULT)
    del fields[field]
    return json.dumps(fields).encode()


def with_field(name: str, value: object) -> bytes:
    return json.dumps({**dataclasses.asdict(RESULT), name: value}).encode()


WHOLE = json.dumps(dataclasses.asdict(RESULT)).encode()


@given(content=st.binary(max_size=40) | st.integers(0, len(WHOLE) - 1).map(lambda i: WHOLE[:i]))
@example(content=b"")
@example(content=b"null")
@example(content=b"[]")
@example(content=bytes(len(WHOLE)))
@example(content=b"\xff" * 20)
@example(content=without("level"))
@example(content=without("bad"))
@example(content=with_field("fields_of_tomorrow", 1))
@example(content=with_field("fixes", None))
@example(content=with_field("bad", [{"name": "x"}]))
@example(content=with_field("bad", [3]))
@example(content=with_field("level", "levels of tomorrow"))
@same_folder
def test_a_damaged_record_is_no_record(dataset: Path, content: bytes) -> None:
    records.keep(RESULT, SOURCE, dataset=dataset)
    record_path(dataset).write_bytes(content)
    assert find(dataset) is None
    assert records.kept(SOURCE, dataset=dataset, checks=QUARANTINE) == []


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b'{"fixes": []}', WHOLE])
def test_a_damaged_record_of_a_split_is_no_record(dataset: Path, content: bytes) -> None:
    path = layout.staging(dataset, "train", SOURCE.fingerprint) / "result.json"
    path.write_bytes(content)
    assert records.find_summary("train", SOURCE.fingerprint, dataset=dataset) is None


def test_files_of_others_beside_the_records_are_passed_over(dataset: Path) -> None:
    records.keep(RESULT, SOURCE, dataset=dataset)
    (record_path(dataset).parent / "README").write_text("mine")
    assert records.kept(SOURCE, dataset=dataset, checks=QUARANTINE) == [RESULT]
