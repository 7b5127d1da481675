"""A fingerprint tells splits of different bytes apart, and none that are the same."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import PIL
import pytest
import simplejpeg

from beam_imagenet import fingerprint
from beam_imagenet.model import Checks, Job, Source

SOURCE = Source(split="train", archive="/a/train.tar", size=7, modified=9, num_shards=4)
JOB = Job(
    dataset_dir="/data/imagenet2012/5.1.0",
    version="5.1.0",
    keep_member_path=False,
    checks=Checks(),
    sources=(SOURCE,),
)


def of(job: Job = JOB, **changes: Any) -> str:
    """Fingerprint of the job's one split, with other fields of its source."""
    changed = dataclasses.replace(job.sources[0], **changes)
    [found] = fingerprint.with_fingerprints(dataclasses.replace(job, sources=(changed,))).sources
    return found.fingerprint


def checked(**fields: Any) -> str:
    return of(dataclasses.replace(JOB, checks=Checks(**fields)))


def test_a_fingerprint_is_sixteen_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{16}", of())


def test_the_same_job_has_the_same_fingerprint_in_every_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PIL, "__version__", "1")
    monkeypatch.setattr(simplejpeg, "__version__", "2")
    assert of() == "5f05f9698d5b06db"  # a salted hash would be the same within this process


@pytest.mark.parametrize(
    "change",
    [
        {"split": "test"},
        {"archive": "/b/train.tar"},
        {"size": 8},
        {"modified": 10},
        {"num_shards": 5},
        {"num_shards": None},
    ],
)
def test_another_archive_or_shard_count_is_another_fingerprint(change: dict[str, Any]) -> None:
    assert of(**change) != of()


def test_other_file_names_are_another_fingerprint() -> None:
    assert of(dataclasses.replace(JOB, keep_member_path=True)) != of()


@pytest.mark.parametrize("codec", [PIL, simplejpeg])
def test_another_version_of_a_codec_is_another_fingerprint(
    codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of()
    monkeypatch.setattr(codec, "__version__", "0.0.1")
    assert of() != before


@pytest.mark.parametrize(
    "change",
    [{"dataset_dir": "/elsewhere/imagenet2012/5.1.0"}, {"version": "5.0.0"}, {"seen": "x"}],
)
def test_what_changes_no_byte_of_a_shard_changes_no_fingerprint(change: dict[str, Any]) -> None:
    assert of(dataclasses.replace(JOB, **change)) == of()
    assert of(folder="elsewhere", fingerprint="an old one") == of()


def test_splits_do_not_change_each_others_fingerprints() -> None:
    test = dataclasses.replace(SOURCE, split="test")
    both = fingerprint.with_fingerprints(dataclasses.replace(JOB, sources=(test, SOURCE)))
    assert [source.fingerprint for source in both.sources] == [of(split="test"), of()]


@pytest.mark.parametrize(
    "same",
    [
        # Nothing is bad in what "fail" has written, and both levels take the same for bad.
        [{}, {"on_bad_image": "quarantine"}, {"level": "decode"}, {"max_bad_images": 3}],
        [{"strict": True}, {"strict": True, "on_bad_image": "quarantine"}],
        [{"level": "decode", "strict": True}],
        [{"level": "none"}, {"level": "none", "strict": True}],
        [{"on_bad_image": "keep"}, {"on_bad_image": "keep", "level": "decode"}],
        # What counts as bad is kept without its colour fix.
        [{"on_bad_image": "keep", "strict": True}],
    ],
)
def test_checks_change_the_fingerprint_where_they_change_what_is_left_out(
    same: list[dict[str, Any]],
) -> None:
    [found] = {checked(**fields) for fields in same}
    others: list[dict[str, Any]] = [
        {},
        {"strict": True},
        {"level": "decode", "strict": True},
        {"level": "none"},
        {"on_bad_image": "keep"},
        {"on_bad_image": "keep", "strict": True},
    ]
    different = [fields for fields in others if fields not in same]
    assert len(different) == len(others) - 1
    assert found not in {checked(**fields) for fields in different}
