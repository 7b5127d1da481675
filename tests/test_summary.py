"""What a run tells of itself: its file, its table, and its notes on converted images."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from beam_imagenet import labels, summary
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

PNG = ColorFix(file_name="n02105855_2933.JPEG", kind="PNG")
CMYK = ColorFix(file_name="n01739381_1309.JPEG", kind="CMYK")
UNKNOWN = ColorFix(file_name="n01440764_1.JPEG", kind="CMYK")


ODD = Finding(file_name="n01440764_2.JPEG", reason="it has no end-of-image mark")


def split_row(split: str, *fixes: ColorFix, **changes: Any) -> summary.SplitSummary:
    row = summary.SplitSummary(
        split=split,
        fingerprint="f",
        images=labels.IMAGES[split],
        num_bytes=144_000_000_000,
        shards=1024,
        classes=0 if split == "test" else 1000,
        fixes=fixes,
        level="header",
        bad=(),
        bad_kept=False,
        suspect=(),
        suspicions=(),
        worker_seconds=120.0,
        kept_shards=0,
        kept_bytes=0,
        finished=9.0,
    )
    return dataclasses.replace(row, **changes)


def test_a_results_file_is_json_with_the_names_of_its_fields() -> None:
    rows = [split_row("train", PNG, bad=(ODD,)), split_row("test")]
    fields = json.loads(summary.to_json("5.1.0", rows))
    assert fields["version"] == "5.1.0"
    assert [split["split"] for split in fields["splits"]] == ["train", "test"]
    assert fields["splits"][0]["images"] == 1_281_167
    assert fields["splits"][0]["fixes"] == [{"file_name": PNG.file_name, "kind": "PNG"}]
    assert fields["splits"][0]["bad"] == [{"file_name": ODD.file_name, "reason": ODD.reason}]


SHARD = PlannedShard(shard="", num_examples=0, num_bytes=0, names_digest="")
PLANS = [
    SplitPlan(split="test", num_classes=0, shards=(SHARD,), suspicions=("odd",)),
    SplitPlan(split="train", num_classes=3, shards=(SHARD, SHARD)),
]
WRITTEN = ShardResult(
    split="train",
    shard="",
    num_examples=5,
    num_bytes=100,
    file_bytes=180,
    names_digest="",
    fixes=(PNG, CMYK),
    level="decode",
    bad=(),
    suspect=(),
    seconds=1.5,
)


def job_of(checks: Checks) -> Job:
    sources = tuple(
        Source(split=split, archive="a.tar", size=1, modified=1, fingerprint=f"{split}'s")
        for split in ("test", "train")
    )
    return Job(
        dataset_dir="d", version="5.0.0", keep_member_path=False, checks=checks, sources=sources
    )


def test_summarize_adds_up_each_splits_shards_in_the_order_of_splits() -> None:
    second = Finding(file_name="z", reason="second")
    written = [
        dataclasses.replace(WRITTEN, fixes=(UNKNOWN,), num_examples=6, bad=(second,), kept=True),
        dataclasses.replace(WRITTEN, split="test", fixes=(), num_bytes=7, suspect=(ODD,)),
        dataclasses.replace(WRITTEN, bad=(ODD,)),
    ]
    assert summary.summarize(job_of(Checks()), PLANS, written, finished=9.0) == [
        summary.SplitSummary(
            split="train",
            fingerprint="train's",
            images=11,
            num_bytes=200,
            shards=2,
            classes=3,
            fixes=(UNKNOWN, CMYK, PNG),
            level="header",
            bad=(ODD, second),
            bad_kept=False,
            suspect=(),
            suspicions=(),
            worker_seconds=1.5,
            kept_shards=1,
            kept_bytes=100,
            finished=9.0,
        ),
        summary.SplitSummary(
            split="test",
            fingerprint="test's",
            images=5,
            num_bytes=7,
            shards=1,
            classes=0,
            fixes=(),
            level="header",
            bad=(),
            bad_kept=False,
            suspect=(ODD,),
            suspicions=("odd",),
            worker_seconds=1.5,
            kept_shards=0,
            kept_bytes=0,
            finished=9.0,
        ),
    ]


def test_a_split_counts_as_checked_as_closely_as_was_asked_for() -> None:
    """Shards that are kept may have been looked at more closely, but not all of them."""
    rows = summary.summarize(job_of(Checks(level="header")), PLANS, [WRITTEN], finished=1.0)
    assert {row.level for row in rows} == {"header"}


@pytest.mark.parametrize(
    ("on_bad_image", "bad", "max_bad_images", "level", "serves"),
    [
        ("fail", 0, 100, "header", True),
        ("fail", 1, 100, "header", False),
        ("quarantine", 2, 2, "header", True),
        ("quarantine", 3, 2, "header", False),
        ("keep", 3, 0, "header", True),
        ("fail", 0, 100, "none", True),
        ("fail", 0, 100, "decode", False),
        ("keep", 0, 100, "decode", False),
    ],
)
def test_a_split_serves_a_job_that_would_make_the_same(
    on_bad_image: str, bad: int, max_bad_images: int, level: str, serves: bool
) -> None:
    row = split_row("train", bad=(ODD,) * bad)
    checks = Checks(level=level, on_bad_image=on_bad_image, max_bad_images=max_bad_images)
    assert row.serves(checks) is serves


def test_the_table_has_a_row_a_split() -> None:
    rows = [
        split_row("train", PNG),
        split_row("test", bad=(ODD,) * 1200, kept_shards=512, kept_bytes=72_000_000_000),
    ]
    head, train, test, blank, *_, last = summary.table(rows, seconds=100.0).splitlines()
    assert head.split()[:5] == ["split", "images", "bytes", "shards", "classes"]
    columns = ["144,000,000,000", "1,024"]
    assert train.split() == ["train", "1,281,167", *columns, "1,000", "1", "0", "120.0", "1,200"]
    assert test.split() == ["test", "100,000", *columns, "-", "0", "1,200", "120.0", "600"]
    assert blank == ""
    assert last.startswith("100.0 s in all, 2,160 MB/s.")
    assert len({len(line) for line in (head, train, test)}) == 1


def test_the_table_is_made_of_a_run_without_work_too() -> None:
    row = split_row("validation", num_bytes=0, worker_seconds=0.0)
    assert "validation" in summary.table([row], seconds=0.1)


def test_what_is_missing_of_the_split_and_what_was_kept_is_counted() -> None:
    rows = [
        split_row("train", kept_shards=612),
        split_row("validation", images=49_999),
        split_row("test"),
    ]
    assert summary.count_notes(rows) == [
        "validation: 49,999 of ILSVRC-2012's 50,000 images",
        "train: 612 of 1,024 shards kept",
    ]
    table = summary.table(rows, seconds=1.0).splitlines()
    assert set(summary.count_notes(rows)) <= set(table)


def test_findings_are_named_with_what_became_of_them() -> None:
    rows = [
        split_row("train", bad=(ODD,), suspicions=("n01440764.tar has no end mark",)),
        split_row("test", bad=(ODD,), bad_kept=True, suspect=(ODD,)),
    ]
    named = f"{ODD.file_name}: {ODD.reason}"
    assert summary.finding_notes(rows) == [
        "train: n01440764.tar has no end mark",
        f"train, bad, left out: {named}",
        f"test, bad, kept: {named}",
        f"test, suspect: {named}",
    ]
    assert set(summary.finding_notes(rows)) <= set(summary.table(rows, seconds=1.0).splitlines())


def test_of_many_findings_the_first_are_named_and_the_rest_counted() -> None:
    many = tuple(Finding(file_name=f"{number}", reason="odd") for number in range(1012))
    notes = summary.finding_notes([split_row("test", suspect=many)])
    assert notes[9] == "test, suspect: 9: odd"
    assert notes[10:] == ["test, suspect: 1,002 more, all in result.json"]


def test_the_table_tells_of_converted_images() -> None:
    assert f"Converted from PNG to RGB: {PNG.file_name}" in summary.table(
        [split_row("train", PNG)], seconds=1.0
    )


def test_all_known_images_converted_is_told_and_no_surprise() -> None:
    known = [ColorFix(file_name=name, kind="CMYK") for name in sorted(labels.CMYK_IMAGES)]
    notes = summary.fix_notes([split_row("train", *known, PNG)])
    assert notes == [
        f"Converted from CMYK to RGB: {' '.join(sorted(labels.CMYK_IMAGES))}",
        f"Converted from PNG to RGB: {PNG.file_name}",
    ]


def test_a_path_in_the_archive_does_not_hide_a_known_image() -> None:
    known = [ColorFix(file_name=f"train/{name}", kind="CMYK") for name in labels.CMYK_IMAGES]
    notes = summary.fix_notes([split_row("train", *known, PNG)])
    assert not [note for note in notes if "nown to be" in note]


def test_unlisted_and_absent_images_are_surprises() -> None:
    notes = summary.fix_notes([split_row("train", CMYK, UNKNOWN)])
    absent = sorted(labels.CMYK_IMAGES - {CMYK.file_name})
    assert notes == [
        f"Converted from CMYK to RGB: {UNKNOWN.file_name} {CMYK.file_name}",
        f"Not known to be CMYK in ILSVRC-2012: {UNKNOWN.file_name}",
        f"Known to be CMYK in ILSVRC-2012, but not found so: {' '.join(absent)}",
        f"Known to be PNG in ILSVRC-2012, but not found so: {PNG.file_name}",
    ]


def test_a_known_image_of_the_wrong_kind_is_a_surprise_both_ways() -> None:
    as_png = ColorFix(file_name=CMYK.file_name, kind="PNG")
    notes = summary.fix_notes([split_row("train", as_png)])
    assert f"Not known to be PNG in ILSVRC-2012: {CMYK.file_name}" in notes
    assert any("Known to be CMYK" in note and CMYK.file_name in note for note in notes)


def test_without_train_no_image_is_missed() -> None:
    assert summary.fix_notes([split_row("validation"), split_row("test")]) == []
