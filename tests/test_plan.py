"""The plan: shard counts, boundaries and order beside TFDS's; and what it refuses to plan."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.utils import shard_utils

from beam_imagenet.errors import ArchiveError, ReconcileError, UsageError
from beam_imagenet.model import MemberBatch, ShardTask, Source, SplitPlan
from beam_imagenet.plan import boundaries, names_digest, plan_split, shard_count

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
TRAIN_IMAGES, VALIDATION_IMAGES, TEST_IMAGES = 1_281_167, 50_000, 100_000


@pytest.mark.parametrize(
    ("num_bytes", "num_examples", "shards"),
    [
        (137 * GIB, TRAIN_IMAGES, 1024),
        (int(6.3 * GIB), VALIDATION_IMAGES, 64),
        (int(12.7 * GIB), TEST_IMAGES, 128),
        (0, 1, 1),
        (100 * KIB, 1, 1),
        (64 * MIB, 1000, 1),
        (128 * MIB - 1000 * 16 - 1, 1000, 1),
        (128 * MIB - 1000 * 16, 1000, 2),  # framing counts
        (64 * GIB - 1024 * 16 - 1, 1024, 512),
        (64 * GIB - 1024 * 16, 1024, 1024),
        (100 * GIB, 1023, 512),  # a shard is never empty
        (10 * GIB, 9, 1),  # 8 shards would have over 1 GiB each
        (10 * GIB, 64, 64),
        (1025 * GIB - 1, TRAIN_IMAGES, 2048),
        (1024 * GIB, TRAIN_IMAGES, 1024),
        (1026 * GIB, TRAIN_IMAGES, 2048),
        (2049 * GIB, TRAIN_IMAGES, 3072),
    ],
)
def test_shard_count_of_known_splits(num_bytes: int, num_examples: int, shards: int) -> None:
    assert shard_count(num_bytes=num_bytes, num_examples=num_examples) == shards


# Around each power of two between nothing and 4 TiB.
byte_counts = st.builds(
    lambda power, sixteenths, offset: max(0, (sixteenths << power) // 16 + offset),
    st.integers(0, 42),
    st.integers(1, 16),
    st.integers(-40, 40),
)
example_counts = st.one_of(st.integers(1, 4096), st.integers(1, 1 << 24))


@given(num_bytes=byte_counts, num_examples=example_counts)
@settings(deadline=None, max_examples=1500)
def test_shard_count_is_tfds(num_bytes: int, num_examples: int) -> None:
    if num_bytes > 1000 * GIB:
        num_examples += 1 << 13  # with fewer, TFDS never returns
    expected = shard_utils.ShardConfig.calculate_number_shards(num_bytes, num_examples)
    assert shard_count(num_bytes=num_bytes, num_examples=num_examples) == expected


def test_shard_count_ends_where_tfds_does_not() -> None:
    assert shard_count(num_bytes=4096 * GIB, num_examples=10) == 4096


@given(num_examples=st.integers(1, 2_000_000), num_shards=st.integers(1, 4096))
@settings(deadline=None, max_examples=100)
def test_boundaries_are_tfds(num_examples: int, num_shards: int) -> None:
    num_shards = min(num_shards, num_examples)
    expected = shard_utils.get_shard_boundaries(num_examples, num_shards)
    assert boundaries(num_examples=num_examples, num_shards=num_shards) == expected


def test_boundaries_round_half_to_even() -> None:
    assert boundaries(num_examples=10, num_shards=4) == [2, 5, 8, 10]


def test_names_digest_tells_order_and_bounds_of_names() -> None:
    digests = [names_digest(names) for names in ([], [b"a", b"b"], [b"b", b"a"], [b"ab"], [b"a"])]
    assert len(set(digests)) == len(digests)
    assert names_digest(iter([b"a", b"b"])) == digests[1]


def laid_out(
    split: str, batches: Sequence[Sequence[tuple[str, int, int]]], *, num_shards: int | None = None
) -> tuple[Source, list[MemberBatch]]:
    """Batches of (name, bytes, label), as if read from an archive: a header, data, padding each."""
    stops = np.cumsum(
        [512 + sum(512 + -(-size // 512) * 512 for _, size, _ in rows) for rows in batches]
    ).tolist()
    source = Source(
        split=split, archive="/archives/made.tar", size=stops[-1], modified=7, num_shards=num_shards
    )
    found = []
    for start, stop, rows in zip([0, *stops], stops, batches, strict=False):
        padded = [-(-size // 512) * 512 for _, size, _ in rows]
        ends = np.cumsum([512 + size for size in padded], dtype=np.int64) + start + 512
        found.append(
            MemberBatch(
                source=source,
                start=start,
                stop=stop,
                overhead=stop - start - sum(padded),
                names=np.array([name.encode() for name, _, _ in rows], dtype=np.bytes_),
                offsets=ends - np.array(padded, dtype=np.int64),
                sizes=np.array([size for _, size, _ in rows], dtype=np.uint32),
                labels=np.array([label for _, _, label in rows], dtype=np.int16),
            )
        )
    return source, found


def planned(source: Source, batches: Sequence[MemberBatch]) -> tuple[SplitPlan, list[ShardTask]]:
    plan, tasks = plan_split(source, batches)
    return plan, list(tasks)


def rows_of(task: ShardTask | MemberBatch) -> list[tuple[Any, ...]]:
    columns = (task.names, task.offsets, task.sizes, task.labels)
    return list(zip(*(column.tolist() for column in columns), strict=True))


members = st.tuples(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60),
    st.sampled_from([0, 1, 100, 127, 128, 511, 512, 513, 20_000]),
    st.integers(-1, 999),
)


@st.composite
def member_batches(draw: st.DrawFn) -> list[list[tuple[str, int, int]]]:
    """Members of different names, in batches of which some are empty."""
    rows = draw(st.lists(members, min_size=1, max_size=20, unique_by=lambda row: row[0]))
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    return [rows[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(rows)])]


@given(
    split=st.sampled_from(["train", "validation", "test"]),
    rows=member_batches(),
    data=st.data(),
)
@settings(deadline=None, max_examples=100)
def test_every_member_is_in_one_shard_in_tfds_order(
    split: str, rows: list[list[tuple[str, int, int]]], data: st.DataObject
) -> None:
    names = [name for batch in rows for name, _, _ in batch]
    num_shards = data.draw(st.integers(1, len(names)))
    source, batches = laid_out(split, rows, num_shards=num_shards)
    plan, tasks = planned(source, data.draw(st.permutations(batches)))
    shards = [rows_of(task) for task in tasks]
    hasher = hashing.Hasher(split)
    everything = sorted(
        [row for batch in batches for row in rows_of(batch)],
        key=lambda row: hasher.hash_key(row[0]),
    )
    assert [row for shard in shards for row in shard] == everything
    stops = np.cumsum([len(shard) for shard in shards]).tolist()
    assert stops == list(shard_utils.get_shard_boundaries(len(names), num_shards))
    labels = {label for batch in rows for _, _, label in batch} - {-1}
    assert (plan.split, plan.num_classes) == (split, len(labels))


@given(rows=member_batches(), data=st.data())
@settings(deadline=None, max_examples=50)
def test_planned_shards_tell_what_the_tasks_will_write(
    rows: list[list[tuple[str, int, int]]], data: st.DataObject
) -> None:
    num_shards = data.draw(st.integers(1, sum(map(len, rows))))
    source, batches = laid_out("train", rows, num_shards=num_shards)
    plan, tasks = planned(source, batches)
    assert len(plan.shards) == len(tasks) == num_shards
    for index, (shard, task) in enumerate(zip(plan.shards, tasks, strict=True)):
        assert (task.source, task.index, task.num_shards) == (source, index, num_shards)
        expected = f"imagenet2012-train.tfrecord-{index:05d}-of-{num_shards:05d}"
        assert shard.shard == task.shard == expected
        assert shard.num_examples == len(task.names)
        assert shard.names_digest == names_digest(task.names.tolist())
        assert shard.num_bytes == sum(
            serialised_size(name, size, label) for name, _, size, label in rows_of(task)
        )


def serialised_size(name: bytes, size: int, label: int) -> int:
    feature = {
        "file_name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name])),
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(size)])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return len(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


ROWS = [
    [("a", 100, 0), ("b", 600, 1)],
    [("c", 512, 2), ("d", 0, 2), ("e", 9, 2)],
    [("f", 1, 3)],
]


def test_the_plan_depends_neither_on_the_order_of_batches_nor_of_members() -> None:
    source, batches = laid_out("train", ROWS, num_shards=3)
    _, swapped = laid_out("train", [list(reversed(rows)) for rows in ROWS], num_shards=3)
    plan, tasks = planned(source, batches)
    other_plan, other_tasks = planned(source, swapped[::-1])
    assert other_plan == plan
    assert planned(source, batches[::-1])[0] == plan
    for task, other in zip(tasks, other_tasks, strict=True):
        assert other.names.tolist() == task.names.tolist()


@pytest.mark.parametrize(("images", "size", "shards"), [(6, 1000, 1), (40, 16 << 20, 8)])
def test_without_num_shards_tfds_rule_holds(images: int, size: int, shards: int) -> None:
    source, batches = laid_out("test", [[(f"{number}", size, -1) for number in range(images)]])
    plan, tasks = planned(source, batches)
    assert len(plan.shards) == len(tasks) == shards
    assert plan.num_classes == 0


def test_a_name_that_is_there_twice_is_refused_with_both_places() -> None:
    source, batches = laid_out("train", [[("a", 1, 0), ("b", 1, 0)], [("c", 1, 1), ("b", 7, 1)]])
    places = [int(batches[0].offsets[1]), int(batches[1].offsets[1])]
    expected = rf"made\.tar: the name 'b' is there twice, .* {places[0]:,} and {places[1]:,}\."
    for order in (batches, batches[::-1]):
        with pytest.raises(ArchiveError, match=expected):
            plan_split(source, order)


def test_an_archive_without_images_is_refused() -> None:
    with pytest.raises(ArchiveError, match=r"^/archives/made\.tar holds no images"):
        plan_split(*laid_out("train", [[], []]))


def test_more_shards_than_images_are_refused() -> None:
    with pytest.raises(UsageError, match="7 shards of train, which has only 6 images"):
        plan_split(*laid_out("train", ROWS, num_shards=7))
    assert len(planned(*laid_out("train", ROWS, num_shards=6))[0].shards) == 6


SOURCE, BATCHES = laid_out("train", ROWS)
FIRST, SECOND, LAST = BATCHES
LOST_OR_REPEATED: dict[str, list[MemberBatch]] = {
    "none": [],
    "the first dropped": [SECOND, LAST],
    "one between dropped": [FIRST, LAST],
    "the last dropped": [FIRST, SECOND],
    "one doubled": [FIRST, SECOND, SECOND, LAST],
    "the last doubled": [FIRST, SECOND, LAST, LAST],
    "names truncated": [FIRST, dataclasses.replace(SECOND, names=SECOND.names[:-1]), LAST],
    "labels truncated": [FIRST, dataclasses.replace(SECOND, labels=SECOND.labels[:-1]), LAST],
    "sizes changed": [
        FIRST,
        dataclasses.replace(SECOND, sizes=SECOND.sizes + np.uint32(512)),
        LAST,
    ],
    "offsets moved back": [FIRST, dataclasses.replace(SECOND, offsets=SECOND.offsets - 2048), LAST],
    "offsets moved on": [FIRST, dataclasses.replace(SECOND, offsets=SECOND.offsets + 2048), LAST],
    "one offset doubled": [
        FIRST,
        dataclasses.replace(SECOND, offsets=SECOND.offsets[[0, 0, 2]]),
        LAST,
    ],
    "members swapped": [
        FIRST,
        dataclasses.replace(SECOND, offsets=SECOND.offsets[::-1], sizes=SECOND.sizes[::-1]),
        LAST,
    ],
    "a member lost": [
        FIRST,
        dataclasses.replace(
            SECOND,
            names=SECOND.names[1:],
            offsets=SECOND.offsets[1:],
            sizes=SECOND.sizes[1:],
            labels=SECOND.labels[1:],
        ),
        LAST,
    ],
}


@pytest.mark.parametrize("case", LOST_OR_REPEATED)
def test_batches_that_do_not_cover_the_archive_once_are_refused(case: str) -> None:
    with pytest.raises(ReconcileError, match=r"^/archives/made\.tar: .* exactly once"):
        plan_split(SOURCE, LOST_OR_REPEATED[case])


def test_what_is_odd_about_an_archive_is_in_the_plan_in_archive_order() -> None:
    odd = dataclasses.replace(FIRST, suspicions=("a", "b"))
    odder = dataclasses.replace(LAST, suspicions=("c",))
    assert plan_split(SOURCE, [odder, SECOND, odd])[0].suspicions == ("a", "b", "c")
    assert plan_split(SOURCE, BATCHES)[0].suspicions == ()


def test_an_archive_of_another_size_is_refused() -> None:
    for size in (SOURCE.size - 512, SOURCE.size + 512):
        with pytest.raises(ReconcileError, match="do not account for bytes"):
            plan_split(dataclasses.replace(SOURCE, size=size), BATCHES)


@pytest.mark.parametrize("column", ["sizes", "offsets"])
def test_a_batch_that_lost_a_row_of_one_column_is_noticed(column: str) -> None:
    broken = dataclasses.replace(SECOND, **{column: getattr(SECOND, column)[:-1]})
    with pytest.raises(ReconcileError):
        plan_split(SOURCE, [FIRST, broken, LAST])
