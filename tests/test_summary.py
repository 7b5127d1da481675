"""What a run tells of itself: its file, its table, and its notes on converted images."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_imagenet import labels, summary
from beam_imagenet.model import ColorFix, Job, PlannedShard, ShardResult, Source, SplitPlan

PNG = ColorFix(file_name="n02105855_2933.JPEG", kind="PNG")
CMYK = ColorFix(file_name="n01739381_1309.JPEG", kind="CMYK")
UNKNOWN = ColorFix(file_name="n01440764_1.JPEG", kind="CMYK")


def split_row(split: str, *fixes: ColorFix) -> summary.SplitSummary:
    return summary.SplitSummary(
        split=split,
        images=1_281_167,
        num_bytes=144_000_000_000,
        shards=1024,
        classes=0 if split == "test" else 1000,
        fixes=fixes,
        worker_seconds=120.0,
    )


def result_of(*splits: summary.SplitSummary) -> summary.RunResult:
    return summary.RunResult(run_id="run", version="5.1.0", finished=1.5, splits=splits)


fixes = st.builds(ColorFix, file_name=st.text(max_size=20), kind=st.sampled_from(["CMYK", "PNG"]))
counts = st.integers(0, 1 << 50)
seconds = st.floats(0, 1e9)
split_rows = st.builds(
    summary.SplitSummary,
    split=st.sampled_from(["train", "validation", "test"]),
    images=counts,
    num_bytes=counts,
    shards=counts,
    classes=counts,
    fixes=st.lists(fixes, max_size=3).map(tuple),
    worker_seconds=seconds,
)
results = st.builds(
    summary.RunResult,
    run_id=st.text(max_size=20),
    version=st.sampled_from(["5.0.0", "5.1.0"]),
    finished=seconds,
    splits=st.lists(split_rows, max_size=3).map(tuple),
)


@given(results)
@settings(deadline=None, max_examples=100)
def test_a_result_reads_back_as_it_was_written(result: summary.RunResult) -> None:
    assert summary.from_json(summary.to_json(result)) == result


def test_a_results_file_is_json_with_the_names_of_its_fields() -> None:
    fields = json.loads(summary.to_json(result_of(split_row("train", PNG))))
    assert fields["version"] == "5.1.0"
    assert fields["splits"][0]["images"] == 1_281_167
    assert fields["splits"][0]["fixes"] == [{"file_name": PNG.file_name, "kind": "PNG"}]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[]", b'{"splits": [{}]}', b'{"splits": []}']
)
def test_what_is_no_result_is_an_error(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        summary.from_json(content)


def test_summarize_adds_up_each_splits_shards_in_the_order_of_splits() -> None:
    sources = tuple(Source(split=split, archive="a.tar", size=1) for split in ("test", "train"))
    job = Job(run_id="7", dataset_dir="d", version="5.0.0", keep_member_path=False, sources=sources)
    shard = PlannedShard(shard="", num_examples=0, num_bytes=0, names_digest="")
    plans = [
        SplitPlan(split="test", num_classes=0, shards=(shard,)),
        SplitPlan(split="train", num_classes=3, shards=(shard, shard)),
    ]
    first = ShardResult(
        split="train",
        shard="",
        num_examples=5,
        num_bytes=100,
        names_digest="",
        fixes=(PNG, CMYK),
        seconds=1.5,
    )
    written = [
        dataclasses.replace(first, fixes=(UNKNOWN,), num_examples=6),
        dataclasses.replace(first, split="test", fixes=(), num_bytes=7),
        first,
    ]
    result = summary.summarize(job, plans, written, finished=9.0)
    assert (result.run_id, result.version, result.finished) == ("7", "5.0.0", 9.0)
    assert result.splits == (
        summary.SplitSummary(
            split="train",
            images=11,
            num_bytes=200,
            shards=2,
            classes=3,
            fixes=(UNKNOWN, CMYK, PNG),
            worker_seconds=3.0,
        ),
        summary.SplitSummary(
            split="test",
            images=5,
            num_bytes=7,
            shards=1,
            classes=0,
            fixes=(),
            worker_seconds=1.5,
        ),
    )


def test_the_table_has_a_row_a_split() -> None:
    result = result_of(split_row("train", PNG), split_row("test"))
    head, train, test, blank, *_, last = summary.table(result, seconds=100.0).splitlines()
    assert head.split()[:5] == ["split", "images", "bytes", "shards", "classes"]
    columns = ["1,281,167", "144,000,000,000", "1,024"]
    assert train.split() == ["train", *columns, "1,000", "1", "120.0", "1,200"]
    assert test.split() == ["test", *columns, "-", "0", "120.0", "1,200"]
    assert blank == ""
    assert last.startswith("100.0 s in all, 2,880 MB/s.")
    assert len({len(line) for line in (head, train, test)}) == 1


def test_the_table_is_made_of_a_run_without_work_too() -> None:
    row = dataclasses.replace(split_row("validation"), num_bytes=0, worker_seconds=0.0)
    assert "validation" in summary.table(result_of(row), seconds=0.1)


def test_the_table_tells_of_converted_images() -> None:
    assert f"Converted from PNG to RGB: {PNG.file_name}" in summary.table(
        result_of(split_row("train", PNG)), seconds=1.0
    )


def test_all_known_images_converted_is_told_and_no_surprise() -> None:
    known = [ColorFix(file_name=name, kind="CMYK") for name in sorted(labels.CMYK_IMAGES)]
    notes = summary.fix_notes(result_of(split_row("train", *known, PNG)))
    assert notes == [
        f"Converted from CMYK to RGB: {' '.join(sorted(labels.CMYK_IMAGES))}",
        f"Converted from PNG to RGB: {PNG.file_name}",
    ]


def test_a_path_in_the_archive_does_not_hide_a_known_image() -> None:
    known = [ColorFix(file_name=f"train/{name}", kind="CMYK") for name in labels.CMYK_IMAGES]
    notes = summary.fix_notes(result_of(split_row("train", *known, PNG)))
    assert not [note for note in notes if "nown to be" in note]


def test_unlisted_and_absent_images_are_surprises() -> None:
    notes = summary.fix_notes(result_of(split_row("train", CMYK, UNKNOWN)))
    absent = sorted(labels.CMYK_IMAGES - {CMYK.file_name})
    assert notes == [
        f"Converted from CMYK to RGB: {UNKNOWN.file_name} {CMYK.file_name}",
        f"Not known to be CMYK in ILSVRC-2012: {UNKNOWN.file_name}",
        f"Known to be CMYK in ILSVRC-2012, but not found so: {' '.join(absent)}",
        f"Known to be PNG in ILSVRC-2012, but not found so: {PNG.file_name}",
    ]


def test_a_known_image_of_the_wrong_kind_is_a_surprise_both_ways() -> None:
    as_png = ColorFix(file_name=CMYK.file_name, kind="PNG")
    notes = summary.fix_notes(result_of(split_row("train", as_png)))
    assert f"Not known to be PNG in ILSVRC-2012: {CMYK.file_name}" in notes
    assert any("Known to be CMYK" in note and CMYK.file_name in note for note in notes)


def test_without_train_no_image_is_missed() -> None:
    assert summary.fix_notes(result_of(split_row("validation"), split_row("test"))) == []


@pytest.mark.parametrize("content", [b"3", b"null", b'"x"'])
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        summary.from_json(content)
