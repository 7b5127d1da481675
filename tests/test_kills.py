"""A run that dies at any moment leaves no half dataset, and the same command again does what is left."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from beam_imagenet import __main__, commit, layout, sample
from beam_imagenet.model import Job, ShardResult, SplitPlan
from tests import by_hand, commands, disturbed, kill_at
from tests.disturbed import Moment

pytestmark = pytest.mark.slow

SHARDS = "--num_shards=train:24,validation:8,test:8"
TOTAL = 24 + 8 + 8

MOMENTS = [
    Moment(event=event, share=share)
    for event, shares in {
        "occupy: rename": (0.5,),
        "list segments: read": (0.5,),
        "walk headers: read": (0.6,),
        "plan: start": (1,),
        "write shard: create": (0,),
        "write shard: read": (0.3,),
        "write shard: write": (0.1, 0.25, 0.4, 0.55, 0.7, 0.9),
        "finish shard: fsync": (0.2, 0.8),
        "finish shard: rename": (0, 0.6),
        "record: create": (0.3,),
        "record: write": (0.5,),
        "record: rename": (1,),
        "commit: start": (1,),
        "commit: rename": (0.5,),
        "publish: write": (1,),
        "publish: rename": (1,),
        "publish: fsync": (1,),
        "result: rename": (1,),
        "commit: end": (1,),
    }.items()
    for share in shares
]
"""In every stage. All events of the commit are gone through on their own, further down."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A conversion that nothing happened to."""

    manual_dir: Path
    more: tuple[str, ...]
    dataset: Path
    files: dict[str, bytes]
    run: disturbed.Ended

    @classmethod
    def made(cls, manual_dir: Path, data_dir: Path, *more: str) -> Self:
        """Converts with these options."""
        options = _options(manual_dir, data_dir, *more)
        run = disturbed.run(*options, log=data_dir / "log")
        assert (run.status, run.stderr) == (0, ""), run.stderr
        dataset = data_dir / commands.VERSION_FOLDER
        files = commands.dataset_files(dataset)
        return cls(manual_dir=manual_dir, more=more, dataset=dataset, files=files, run=run)

    def options(self, data_dir: Path) -> list[str]:
        """The options of the same conversion to another place."""
        return _options(self.manual_dir, data_dir, *self.more)


def _options(manual_dir: Path, data_dir: Path, *more: str) -> list[str]:
    folders = (f"--manual_dir={manual_dir}", f"--data_dir={data_dir}")
    return [*folders, "--direct_num_workers=2", *more]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Archives of 130 MB, and what becomes of them."""
    manual_dir = tmp_path_factory.mktemp("large_archives")
    spec = sample.SampleSpec(
        train_images=1000,
        validation_images=150,
        test_images=150,
        image_bytes=100_000,
        processes=2,
    )
    sample.make_archives(spec, manual_dir)
    return Undisturbed.made(manual_dir, tmp_path_factory.mktemp("undisturbed"), SHARDS)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A folder that is removed at once: together they would be many GB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def kill(undisturbed: Undisturbed, data_dir: Path, moment: Moment, action: str) -> disturbed.Ended:
    return disturbed.run(
        *undisturbed.options(data_dir),
        log=data_dir / "log",
        event=moment.event,
        nth=moment.nth(undisturbed.run.events),
        action=action,
    )


def require_none_or_whole(dataset: Path, expected: dict[str, bytes]) -> None:
    """What readers may find after a first run, however it ended."""
    if disturbed.is_published(dataset):
        assert disturbed.different(commands.dataset_files(dataset), expected) == []
    for path in disturbed.recorded_shards(dataset):
        assert path.read_bytes() == expected[str(path.relative_to(dataset))]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_killed_run_leaves_no_half_dataset_and_is_resumed(
    undisturbed: Undisturbed, data_dir: Path, moment: Moment
) -> None:
    dataset = data_dir / commands.VERSION_FOLDER
    assert kill(undisturbed, data_dir, moment, "kill all").status == -9
    require_none_or_whole(dataset, undisturbed.files)
    disturbed.require_resumed(dataset, undisturbed.options(data_dir), undisturbed.files)


def test_the_moments_are_in_every_stage(undisturbed: Undisturbed) -> None:
    stages = {event.partition(":")[0] for event in undisturbed.run.events}
    assert stages == {moment.event.partition(":")[0] for moment in MOMENTS}
    assert len(MOMENTS) >= 24


def test_two_kills_in_a_row_are_resumed(undisturbed: Undisturbed, data_dir: Path) -> None:
    dataset = data_dir / commands.VERSION_FOLDER
    kill(undisturbed, data_dir, Moment(event="record: rename", share=0.4), "kill all")
    after_first = len(disturbed.recorded_shards(dataset))
    kill(undisturbed, data_dir, Moment(event="record: rename", share=0.3), "kill all")
    assert len(disturbed.recorded_shards(dataset)) > after_first > 0
    require_none_or_whole(dataset, undisturbed.files)
    disturbed.require_resumed(dataset, undisturbed.options(data_dir), undisturbed.files)


@pytest.mark.parametrize(
    "moment",
    [
        Moment(event="walk headers: read", share=0.5),
        Moment(event="write shard: write", share=0.5),
        Moment(event="commit: rename", share=0.5),
    ],
    ids=str,
)
def test_a_worker_that_is_killed_fails_the_run_which_is_resumed(
    undisturbed: Undisturbed, data_dir: Path, moment: Moment
) -> None:
    dataset = data_dir / commands.VERSION_FOLDER
    ended = kill(undisturbed, data_dir, moment, "kill one")
    assert ended.status == 1
    assert "ended with exit code -9" in disturbed.require_one_paragraph(ended.stderr)
    assert not disturbed.is_published(dataset)
    disturbed.require_resumed(dataset, undisturbed.options(data_dir), undisturbed.files)


def test_workers_end_with_a_launcher_that_is_killed_and_the_run_is_resumed(
    undisturbed: Undisturbed, data_dir: Path
) -> None:
    dataset = data_dir / commands.VERSION_FOLDER
    moment = Moment(event="write shard: write", share=0.5)
    assert kill(undisturbed, data_dir, moment, "kill launcher").status == -9
    require_none_or_whole(dataset, undisturbed.files)
    disturbed.require_resumed(dataset, undisturbed.options(data_dir), undisturbed.files)


@pytest.mark.parametrize(
    ("moment", "action"),
    [
        (Moment(event="walk headers: read", share=0.5), "interrupt"),
        (Moment(event="write shard: write", share=0.5), "interrupt"),
        (Moment(event="write shard: write", share=0.5), "terminate"),
        (Moment(event="publish: write", share=1), "interrupt"),
    ],
    ids=str,
)
def test_an_interrupted_run_says_what_is_there_and_is_resumed(
    undisturbed: Undisturbed, data_dir: Path, moment: Moment, action: str
) -> None:
    dataset = data_dir / commands.VERSION_FOLDER
    ended = kill(undisturbed, data_dir, moment, action)
    assert ended.status == 1
    message = disturbed.require_one_paragraph(ended.stderr)
    there = disturbed.is_published(dataset)
    assert ("the dataset is complete" if there else "no dataset was written") in message
    require_none_or_whole(dataset, undisturbed.files)
    disturbed.require_resumed(dataset, undisturbed.options(data_dir), undisturbed.files)


@pytest.mark.parametrize("worker", [1, 2])  # Beam notices the first bundle's failures at once
def test_an_error_of_one_worker_is_not_told_when_the_others_are_done(
    undisturbed: Undisturbed, data_dir: Path, worker: int
) -> None:
    """All shards that are begun after the error take long."""
    dataset = data_dir / commands.VERSION_FOLDER
    options = undisturbed.options(data_dir)
    event = f"write shard: create in ForkProcess-{worker}"
    ended = disturbed.run(*options, log=data_dir / "log", event=event, nth=1, action="fail")
    assert ended.status == 1
    message = disturbed.require_one_paragraph(ended.stderr)
    assert "cannot be written: Input/output error" in message
    assert len(disturbed.recorded_shards(dataset)) < TOTAL / 4
    disturbed.require_resumed(dataset, options, undisturbed.files)


def test_all_bytes_are_on_the_disk_before_readers_see_them(undisturbed: Undisturbed) -> None:
    events = undisturbed.run.events
    published = events.index("publish: rename")
    before, after = events[:published], events[published:]
    assert before.count("finish shard: fsync") == TOTAL
    assert "publish: fsync" in before
    assert "publish: fsync" in after  # the folder, with the new name


def test_all_names_are_on_the_disk_before_readers_see_them(
    replacement: tuple[Path, Undisturbed],
) -> None:
    _, new = replacement
    folders = {path.parent for path in new.dataset.glob("*/*.tfrecord-*-of-?????")}
    assert len(folders) == 3
    assert {folder.stat().st_ino for folder in folders} <= new.run.flushed


@pytest.mark.parametrize(
    "moment",
    [
        Moment(event="write shard: write", share=0.6),
        Moment(event="commit: rename", share=1),
        Moment(event="commit: end", share=1),
    ],
    ids=str,
)
def test_a_loss_of_power_costs_shards_and_never_the_dataset(
    undisturbed: Undisturbed, data_dir: Path, moment: Moment
) -> None:
    """What was not flushed is empty afterwards, the most that a journalling file system takes."""
    dataset = data_dir / commands.VERSION_FOLDER
    ended = kill(undisturbed, data_dir, moment, "kill all")
    for path in dataset.rglob("*"):
        if path.is_file() and path.stat().st_ino not in ended.flushed:
            path.write_bytes(b"")
    if disturbed.is_published(dataset):
        assert disturbed.different(commands.dataset_files(dataset), undisturbed.files) == []
    done = commands.run(*undisturbed.options(data_dir))
    assert (done.returncode, done.stderr) == (0, "")
    assert disturbed.different(commands.dataset_files(dataset), undisturbed.files) == []


@pytest.fixture(scope="module")
def replacement(
    archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Undisturbed]:
    """A small dataset, and the run that replaced a copy of it."""
    old = tmp_path_factory.mktemp("old")
    data_dir = tmp_path_factory.mktemp("replaced")
    commands.convert(manual_dir=archives, data_dir=old, options=("--num_shards=train:5",))
    shutil.copytree(old, data_dir, dirs_exist_ok=True)
    return old / commands.VERSION_FOLDER, Undisturbed.made(archives, data_dir, *REPLACE)


REPLACE = ("--num_shards=train:12,validation:6,test:6", "--overwrite")


def as_readers_see_it(files: dict[str, bytes]) -> dict[str, bytes]:
    """`dataset_info.json` and the files that it points to."""
    info = files[layout.DATASET_INFO]
    seen = {layout.DATASET_INFO: info}
    for split in json.loads(info)["splits"]:
        folder = split["filepathTemplate"].rpartition("{DATASET}")[0]
        count = len(split["shardLengths"])
        for index in range(count):
            name = f"imagenet2012-{split['name']}.tfrecord-{index:05d}-of-{count:05d}"
            seen[folder + name] = files[folder + name]
    return seen


@pytest.mark.parametrize(
    "moment",
    [
        Moment(event="occupy: make folder", share=1),
        Moment(event="write shard: write", share=0.5),
        Moment(event="finish shard: rename", share=0.6),
        Moment(event="publish: write", share=1),
        Moment(event="publish: rename", share=1),
        Moment(event="commit: end", share=1),
    ],
    ids=str,
)
def test_readers_see_the_old_dataset_or_the_new_one_while_it_is_replaced(
    replacement: tuple[Path, Undisturbed], data_dir: Path, moment: Moment
) -> None:
    old, new = replacement
    dataset = data_dir / commands.VERSION_FOLDER
    shutil.copytree(old, dataset)
    options = new.options(data_dir)
    nth = moment.nth(new.run.events)
    ended = disturbed.run(*options, log=data_dir / "log", event=moment.event, nth=nth)
    assert ended.status == -9
    seen = as_readers_see_it(commands.dataset_files(dataset))
    one_or_the_other = (
        as_readers_see_it(commands.dataset_files(old)),
        as_readers_see_it(new.files),
    )
    assert any(not disturbed.different(seen, whole) for whole in one_or_the_other)
    done = commands.run(*options)
    assert (done.returncode, done.stderr) == (0, "")
    assert disturbed.different(commands.dataset_files(dataset), new.files) == []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A small job all of whose shards are written, and none of which is published."""

    options: list[str]
    job: Job
    plans: list[SplitPlan]
    results: list[ShardResult]

    def commit_in(self, dataset: Path, log: Path, nth: int) -> None:
        """Commits in a copy of its folder, up to the n-th event."""
        job = dataclasses.replace(self.job, dataset_dir=str(dataset))
        kill_at.watch(kill_at.Moment(log, kill_at.ANY, nth, kill_at.ACTIONS["kill one"]))
        commit.commit(job, self.plans, self.results)


@pytest.fixture(scope="module")
def written(folder_archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    shards = "--num_shards=validation:2,test:3"
    job = by_hand.occupied(folder_archives, tmp_path_factory.mktemp("written"), shards)
    plans, tasks = by_hand.planned(job)
    return Written(
        options=[f"--manual_dir={folder_archives}", shards],
        job=job,
        plans=plans,
        results=by_hand.write(job, tasks),
    )


def in_process(options: Sequence[str]) -> int:
    return __main__.main([*options, "--direct_running_mode=in_memory"])


def test_a_commit_that_is_killed_at_any_of_its_events_is_resumed(
    written: Written, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected: dict[str, bytes] = {}
    status = -9
    nth = 0
    while status == -9:  # the last one has no n-th event, and ends as it should
        nth += 1
        copy = data_dir / str(nth)
        dataset = copy / commands.VERSION_FOLDER
        shutil.copytree(written.job.dataset_dir, dataset)
        committing = multiprocessing.get_context("fork").Process(
            target=written.commit_in, args=(dataset, data_dir / "log", nth)
        )
        committing.start()
        committing.join()
        status = committing.exitcode or 0
        published = disturbed.is_published(dataset)
        left = commands.dataset_files(dataset)
        assert in_process([*written.options, f"--data_dir={copy}"]) == 0, nth
        files = commands.dataset_files(dataset)
        expected = expected or files
        assert disturbed.different(files, expected) == [], nth
        assert not published or disturbed.different(left, expected) == [], nth
        assert ("nothing to do" in capsys.readouterr().out) == published, nth
        assert disturbed.unfinished(dataset) == [], nth
    assert status == 0
    assert nth > 30
