"""`clean` removes what runs have left and no dataset points to, and never anything else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from beam_imagenet import dataset_info, storage
from tests import commands, tars
from tests.commands import Target

ONE = ("--splits=validation", "--num_shards=validation:5")
INFO = "dataset_info.json"
OTHER = "0123456789abcdef"
BAD = (7, 8)


def cleaned(target: Target, *options: str) -> str:
    """Cleans, requires success, and returns what was printed."""
    status, output, error = target.clean(*options)
    assert (status, error) == (0, "")
    return output


def names(target: Target) -> set[str]:
    return set(commands.stamps(target.dataset))


def put(path: Path, content: str = "mine") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def bad(target: Target) -> Target:
    """A target whose validation archive has two images that are none, each in a shard of its own."""
    path = target.manual_dir / "ILSVRC2012_img_val.tar"
    content = path.read_bytes()
    members = {
        name.decode(): content[start : start + size] for name, start, size in tars.listed(content)
    }
    for number in BAD:
        members[f"ILSVRC2012_val_{number:08}.JPEG"] = b"no image"
    path.write_bytes(tars.tar_of(members.items()))
    return target


def test_a_complete_dataset_has_nothing_to_remove(bad: Target) -> None:
    bad.convert(*ONE, "--on_bad_image=quarantine")
    before = commands.stamps(bad.dataset)
    assert cleaned(bad) == f"{bad.dataset}: nothing to remove.\n"
    assert commands.stamps(bad.dataset) == before


def test_a_begun_run_is_removed(bad: Target) -> None:
    bad.convert("--splits=test")
    published = commands.dataset_files(bad.dataset)
    options = (*ONE, "--on_bad_image=quarantine", "--max_bad_images=1")
    assert "2 bad images were left out" in bad.refused(*options, status=1)
    output = cleaned(bad)
    claim = ".beam_imagenet/validation.claim"
    assert f"validation split, begun, never published: {claim} and 5 more" in output
    assert "validation split, records of a run: .beam_imagenet/validation-" in output
    assert "validation split, images that a run left out: quarantine/validation-" in output
    assert not [name for name in names(bad) if "validation" in name]
    assert commands.dataset_files(bad.dataset) == published
    bad.convert(*ONE, "--file_name=member", "--on_bad_image=quarantine")


def test_a_dataset_that_was_never_published_goes_whole(target: Target) -> None:
    target.convert(*ONE)
    (target.dataset / INFO).unlink()
    cleaned(target)
    assert names(target) == {
        "features.json",
        "label.labels.txt",
        "result.json",
        ".beam_imagenet/lock",
    }
    assert cleaned(target) == f"{target.dataset}: nothing to remove.\n"
    assert "kept" not in target.convert("--splits=validation")


def test_replaced_generations_are_removed_and_the_one_in_use_stays(bad: Target) -> None:
    options = (*ONE, "--on_bad_image=quarantine", "--overwrite")
    bad.convert(*options)  # at the top, with its claim
    bad.convert(*options, "--file_name=member")
    between = {path.name for path in bad.dataset.iterdir() if path.name.startswith("validation-")}
    bad.convert(*options, "--num_shards=validation:3")
    used = bad.info()["validation"]["filepathTemplate"].partition("/")[0]
    files = commands.dataset_files(bad.dataset)
    output = cleaned(bad)
    assert "validation split, replaced by another: .beam_imagenet/validation.claim and 5" in output
    [gone] = between
    assert f"validation split, shards of a generation: {gone}," in output
    kept = {name for name in files if used in name} | {INFO, "features.json", "label.labels.txt"}
    assert len(kept) == 3 + 2 * len(BAD) + 3
    assert commands.dataset_files(bad.dataset) == {name: files[name] for name in kept}
    assert names(bad) - kept - {"result.json", ".beam_imagenet/lock"} == {
        f".beam_imagenet/{used}/{name}"
        for name in (
            "result.json",
            *(
                f"imagenet2012-validation.tfrecord-0000{index}-of-00003.record.json"
                for index in range(3)
            ),
        )
    }
    assert "nothing to do" in bad.convert(*options, "--num_shards=validation:3")


def test_a_generation_that_was_begun_beside_a_dataset_is_removed(bad: Target) -> None:
    bad.convert(*ONE, "--on_bad_image=quarantine")
    before = commands.dataset_files(bad.dataset)
    options = ("--num_shards=validation:25", "--overwrite", "--max_bad_images=1")
    bad.refused(ONE[0], "--on_bad_image=quarantine", *options, status=1)
    assert "shards of a generation" in cleaned(bad)
    assert commands.dataset_files(bad.dataset) == before
    assert "nothing to do" in bad.convert(*ONE, "--on_bad_image=quarantine")


def test_files_of_a_run_that_was_killed_are_removed(target: Target) -> None:
    target.convert(*ONE)
    abandoned = target.dataset / ".beam_imagenet" / "tmp" / "0123.tmp"
    abandoned.write_bytes(bytes(3_000_000))
    assert cleaned(target).splitlines() == [
        "unfinished files of runs that were killed: .beam_imagenet/tmp/0123.tmp, 3.0 MB",
        f"{target.dataset}: 3.0 MB removed.",
    ]
    assert not abandoned.exists()


FOREIGN = [
    "README",
    "imagenet2012-validation.tfrecord-00000-of-00005.bak",
    "imagenet2012-extra.tfrecord-00000-of-00001",
    "validation-old/imagenet2012-validation.tfrecord-00000-of-00001",
    f"my-validation-{OTHER}/x",
    f"validation-{OTHER}.bak/x",
    f"validation-{OTHER[:-1]}/x",
    f"backup/validation-{OTHER}/x",
    "quarantine/README",
    "quarantine/mine/x",
    ".beam_imagenet/README",
    ".beam_imagenet/validation.claim.bak",
    ".beam_imagenet/tmp/README",
]


@pytest.mark.parametrize("begun", [True, False])
def test_files_of_others_are_never_removed(target: Target, begun: bool) -> None:
    target.convert(*ONE)
    target.convert(*ONE, "--strict", "--overwrite")
    if begun:
        (target.dataset / INFO).unlink()
    for name in FOREIGN:
        put(target.dataset / name)
    cleaned(target)
    assert {name for name in FOREIGN if (target.dataset / name).is_file()} == set(FOREIGN)


def test_a_file_or_a_link_under_a_generations_name_stays(target: Target, tmp_path: Path) -> None:
    target.convert(*ONE)
    put(target.dataset / f"validation-{OTHER}")
    put(tmp_path / "elsewhere" / "x")
    (target.dataset / f"test-{OTHER}").symlink_to(tmp_path / "elsewhere")
    assert cleaned(target) == f"{target.dataset}: nothing to remove.\n"
    assert (target.dataset / f"validation-{OTHER}").is_file()
    assert (target.dataset / f"test-{OTHER}" / "x").is_file()


def test_shards_that_others_put_into_the_usual_place_stay(target: Target) -> None:
    """TFDS's own dataset, whose description may be lost: there is no claim, so they are not ours."""
    target.convert()
    shutil.rmtree(target.dataset / ".beam_imagenet")
    theirs = target.shards()
    target.convert("--splits=test", "--strict", "--overwrite")
    assert cleaned(target) == f"{target.dataset}: nothing to remove.\n"
    (target.dataset / INFO).unlink()
    assert "shards of a generation" in cleaned(target)
    assert target.shards() == theirs


def test_a_dry_run_lists_the_same_and_removes_nothing(target: Target) -> None:
    target.convert(*ONE)
    target.convert(*ONE, "--strict", "--overwrite")
    before = commands.stamps(target.dataset)
    told = cleaned(target, "--dry_run").replace("would be removed", "removed")
    assert commands.stamps(target.dataset) == before
    assert cleaned(target) == told
    assert commands.stamps(target.dataset) != before


HOLD = """
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from beam_imagenet import dataset_info, storage
with storage.WholeFile(Path("nowhere"), scratch=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_files_of_processes_that_were_killed_are_swept_and_others_not(
    folder: Path, scratch: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, scratch], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        [held] = scratch.iterdir()
        storage.sweep(scratch)
        assert storage.is_in_use(scratch)
        assert storage.abandoned(scratch) == []
        assert held.exists()
        writer.kill()
    (scratch / "README").touch()
    assert not storage.is_in_use(scratch)
    assert storage.abandoned(scratch) == [held]
    with storage.WholeFile(folder / "x", scratch=scratch) as ours:
        storage.sweep(scratch)
        ours.publish()
    assert [path.name for path in scratch.iterdir()] == ["README"]
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_a_file_that_is_begun_while_others_sweep_is_not_swept_away(
    folder: Path, scratch: Path
) -> None:
    ended = threading.Event()

    def sweep() -> None:
        while not ended.is_set():
            storage.sweep(scratch)

    with ThreadPoolExecutor(2) as pool:
        sweepers = [pool.submit(sweep) for _ in range(2)]
        try:
            for number in range(3000):
                storage.write_file(folder / "file", b"%d" % number, scratch=scratch)
        finally:
            ended.set()
        for sweeper in sweepers:
            sweeper.result()


def test_nothing_is_removed_while_a_run_writes(target: Target) -> None:
    target.convert(*ONE)
    (target.dataset / INFO).unlink()
    before = commands.stamps(target.dataset)
    scratch = target.dataset / ".beam_imagenet" / "tmp"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, scratch], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        status, _, error = target.clean()
        assert status == 2
        assert f"A run is writing to {target.dataset}" in error
        assert "begun, never published" in cleaned(target, "--dry_run")
        now = commands.stamps(target.dataset)
        assert {name for name in before if now.get(name) != before[name]} == set()
        writer.communicate()
    assert "begun, never published" in cleaned(target)


def test_a_folder_without_a_dataset_of_ours_is_left_alone(target: Target) -> None:
    assert target.clean().status == 2
    put(target.dataset / f"validation-{OTHER}" / "x")
    put(target.dataset / "imagenet2012-validation.tfrecord-00000-of-00001")
    before = commands.stamps(target.dataset)
    assert cleaned(target) == f"{target.dataset}: nothing to remove.\n"
    assert commands.stamps(target.dataset) == before


def test_a_description_that_cannot_be_understood_stops_it(target: Target) -> None:
    target.convert(*ONE)
    (target.dataset / INFO).write_text("{")
    before = commands.stamps(target.dataset)
    status, _, error = target.clean()
    assert status == 1
    assert "is no description of a dataset" in error
    assert commands.stamps(target.dataset) == before


def test_another_version_is_another_dataset(target: Target) -> None:
    target.convert(*ONE)
    target.convert(*ONE, "--strict", "--overwrite")
    before = commands.stamps(target.dataset)
    target.convert(*ONE, "--dataset_version=5.0.0")
    assert "nothing to remove" in cleaned(target, "--dataset_version=5.0.0")
    assert commands.stamps(target.dataset) == before


@pytest.mark.parametrize("option", ["--dry_rum", "--manual_dir=x", "all"])
def test_a_wrong_call_removes_nothing(target: Target, option: str) -> None:
    target.convert(*ONE)
    (target.dataset / INFO).unlink()
    before = commands.stamps(target.dataset)
    status, _, error = target.clean(option)
    assert status == 2
    assert "clean --help" in error
    assert commands.stamps(target.dataset) == before


def test_a_run_whose_work_was_cleaned_away_publishes_nothing(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It should be seen that a run is at work, but locks may not reach from one machine to another."""
    reconcile = dataset_info.reconcile

    def clean_first(*arguments: Any) -> None:
        """Runs when all shards are written, before the dataset is published."""
        assert target.clean().status == 2
        with monkeypatch.context() as patch:
            patch.setattr(storage, "is_in_use", lambda scratch: False)
            cleaned(target)
        reconcile(*arguments)

    monkeypatch.setattr(dataset_info, "reconcile", clean_first)
    assert "run the same command again" in target.refused(*ONE, status=1).lower()
    assert not (target.dataset / INFO).exists()
    monkeypatch.undo()
    target.convert(*ONE)
