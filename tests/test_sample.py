"""The sample archives: official layout, odd images under their real names, the command line."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_imagenet import drawing, labels, sample

SPEC = sample.SampleSpec(
    train_images=2345, validation_images=510, test_images=120, image_bytes=1900, processes=1
)
TEST_ONLY = dataclasses.replace(SPEC, train_images=0, validation_images=0)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    paths = sample.make_archives(SPEC, folder)
    assert sorted(paths) == sorted(folder.iterdir())
    return folder


@pytest.fixture(scope="module")
def synsets(out: Path) -> dict[str, dict[str, bytes]]:
    inner = _members((out / sample.TRAIN_ARCHIVE).read_bytes())
    assert all(len(data) % 10_240 == 0 for data in inner.values())
    return {name: _members(data) for name, data in inner.items()}


def _members(data: bytes) -> dict[str, bytes]:
    """Regular files of a tar in stored order."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        found = {name: file.read() for name, file in members if file}
    assert len(found) == len(members)
    return found


def test_train_is_a_tar_of_a_tar_a_synset(synsets: dict[str, dict[str, bytes]]) -> None:
    assert list(synsets) == [f"{wnid}.tar" for wnid in labels.synsets()]


def test_train_images_are_spread_evenly(synsets: dict[str, dict[str, bytes]]) -> None:
    assert [len(images) for images in synsets.values()] == [3] * 345 + [2] * 655


def test_train_names_are_a_wnid_and_an_ascending_number(
    synsets: dict[str, dict[str, bytes]],
) -> None:
    for tar, images in synsets.items():
        wnids, numbers = zip(
            *(name.removesuffix(".JPEG").split("_") for name in images), strict=True
        )
        assert set(wnids) == {tar.removesuffix(".tar")}
        assert list(numbers) == [str(number) for number in sorted(map(int, numbers))]


def test_no_other_image_takes_the_name_of_an_odd_one() -> None:
    for odd in labels.CMYK_IMAGES | labels.PNG_IMAGES:
        wnid = odd.split("_")[0]
        for count in (1, 1300, 4000):
            names = sample.train_names(wnid, count=count)
            assert odd in names
            assert len(set(names)) == len(names) == count


@pytest.mark.parametrize(
    ("archive", "split", "count"),
    [(sample.VALIDATION_ARCHIVE, "val", 510), (sample.TEST_ARCHIVE, "test", 120)],
)
def test_flat_archives_number_their_images(out: Path, archive: str, split: str, count: int) -> None:
    names = list(_members((out / archive).read_bytes()))
    assert names == [f"ILSVRC2012_{split}_{number:08}.JPEG" for number in range(1, count + 1)]


def test_archives_are_padded_and_their_headers_plain(out: Path) -> None:
    for path in out.iterdir():
        assert path.stat().st_size % tarfile.RECORDSIZE == 0
        with tarfile.open(path, "r:") as tar:
            owners = {(m.mtime, m.uid, m.gid, m.uname, m.mode, m.type) for m in tar}
        assert owners == {(1_339_372_800, 1000, 1000, "imagenet", 0o644, tarfile.REGTYPE)}


def test_all_images_are_distinct_and_of_the_size_asked(
    out: Path, synsets: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    images = [data for members in synsets.values() for data in members.values()]
    for archive in (sample.VALIDATION_ARCHIVE, sample.TEST_ARCHIVE):
        images += _members((out / archive).read_bytes()).values()
    assert len(set(images)) == len(images) == 2345 + 510 + 120
    assert np.mean([len(data) for data in images]) == pytest.approx(1900, rel=0.15)
    larger = dataclasses.replace(TEST_ONLY, test_images=800, image_bytes=4000)
    [path] = sample.make_archives(larger, tmp_path)
    sizes = [len(data) for data in _members(path.read_bytes()).values()]
    assert np.mean(sizes) == pytest.approx(4000, rel=0.15)


def test_odd_images_have_their_real_names(synsets: dict[str, dict[str, bytes]]) -> None:
    cmyk, png, transforms = set(), set(), []
    for images in synsets.values():
        for name, data in images.items():
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                if image.format == "PNG":
                    png.add(name)
                elif image.mode == "CMYK":
                    cmyk.add(name)
                    transforms.append(image.info["adobe_transform"])
    assert cmyk == labels.CMYK_IMAGES
    assert png == labels.PNG_IMAGES
    assert transforms.count(2) == 4
    assert transforms.count(0) == 18


def test_processes_do_not_change_the_bytes(out: Path, tmp_path: Path) -> None:
    sample.make_archives(dataclasses.replace(SPEC, processes=2), tmp_path)
    for path in out.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_another_seed_gives_other_images(out: Path, tmp_path: Path) -> None:
    [path] = sample.make_archives(dataclasses.replace(TEST_ONLY, seed=1), tmp_path)
    others = _members(path.read_bytes())
    images = _members((out / sample.TEST_ARCHIVE).read_bytes())
    assert list(others) == list(images)
    assert not set(others.values()) & set(images.values())


def test_folders_layout_moves_the_same_images_below_a_directory(out: Path, tmp_path: Path) -> None:
    [path] = sample.make_archives(dataclasses.replace(TEST_ONLY, layout="folders"), tmp_path)
    with tarfile.open(path, "r:") as tar:
        first = tar.next()
    assert first is not None
    assert first.isdir()
    assert first.name == "test"
    flat = _members((out / sample.TEST_ARCHIVE).read_bytes())
    assert _members(path.read_bytes()) == {f"test/{name}": data for name, data in flat.items()}


def test_a_failed_run_leaves_neither_archive_nor_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def photograph(self: drawing.Painter, name: str) -> bytes:
        if name.endswith("00000300.JPEG"):
            raise OSError("no space left")
        return b"jpeg"

    monkeypatch.setattr(drawing.Painter, "photograph", photograph)
    with pytest.raises(OSError, match="no space left"):
        sample.make_archives(dataclasses.replace(SPEC, train_images=0), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_archive_and_no_processes(tmp_path: Path) -> None:
    code = "import sys; from beam_imagenet import sample; sample.main(sys.argv[1:])"
    argv = [f"--out={tmp_path}", "--train_images=9000", "--image_bytes=200000", "--processes=2"]
    run = subprocess.Popen([sys.executable, "-c", code, *argv], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.kill()
    # The pipe ends when the last process that inherited it does.
    run.communicate(timeout=30)
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]


def test_the_command_writes_the_splits_asked_and_reports_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    argv = [f"--out={out}", "--train_images=0", "--validation_images=5", "--test_images=0"]
    assert sample.main([*argv, "--processes=1"]) == 0
    [path] = out.iterdir()
    assert path.name == sample.VALIDATION_ARCHIVE
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path}: 5 images, {path.stat().st_size:,} bytes, ")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--train_images=999", "ask for 0 or at least 1,000"),
        ("--train_images=-1", "ask for 0 or at least 1,000"),
        ("--validation_images=-1", "from 0 to 50,000"),
        ("--validation_images=50001", "from 0 to 50,000"),
        ("--test_images=-1", "from 0 to 100,000"),
        ("--test_images=100001", "from 0 to 100,000"),
        ("--image_bytes=999", "from 1,000 to 1,000,000"),
        ("--image_bytes=1000001", "from 1,000 to 1,000,000"),
        ("--processes=0", "at least 1"),
        ("--layout=deep", "invalid choice"),
        ("--validation_image=5", "unrecognized arguments"),
        ("--test_images=0", "nothing to make"),
    ],
)
def test_misuse_exits_with_2_and_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, reason: str
) -> None:
    argv = [f"--out={tmp_path / 'out'}", "--train_images=0", "--validation_images=0"]
    with pytest.raises(SystemExit) as exit_info:
        sample.main([*argv, "--test_images=2", "--processes=1", option])
    assert exit_info.value.code == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_out_must_be_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        with pytest.raises(SystemExit) as exit_info:
            sample.main([f"--out={out}"])
        assert exit_info.value.code == 2
        assert "cannot be a directory" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_an_archive_is_replaced_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / sample.TEST_ARCHIVE
    path.write_text("mine")
    argv = [f"--out={tmp_path}", "--train_images=0", "--validation_images=1", "--test_images=1"]
    with pytest.raises(SystemExit) as exit_info:
        sample.main([*argv, "--processes=1"])
    assert exit_info.value.code == 2
    assert f"already has {sample.TEST_ARCHIVE}; --force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert not (tmp_path / sample.VALIDATION_ARCHIVE).exists()
    assert sample.main([*argv, "--processes=1", "--force"]) == 0
    assert list(_members(path.read_bytes())) == ["ILSVRC2012_test_00000001.JPEG"]
