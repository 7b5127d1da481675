"""YAML configs hold the command line's options, and the command line wins."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from beam_imagenet import options
from beam_imagenet.errors import UsageError
from beam_imagenet.model import Checks
from tests import commands

LOCAL = Path(__file__).parent.parent / "pipeline_configs" / "local.yaml"


def write(path: Path, **content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_config_says_what_the_command_line_would(archives: Path, tmp_path: Path) -> None:
    config = write(
        tmp_path / "config.yaml",
        manual_dir=str(archives),
        data_dir=str(tmp_path / "data"),
        splits=["validation", "test"],
        num_shards={"validation": 3, "test": 2},
        direct_num_workers=1,
        experiments=["one", "two"],
        verbose=False,
    )
    done = commands.run(f"--config={config}")
    assert done.returncode == 0, done.stderr
    names = sorted(
        path.name for path in (tmp_path / "data" / commands.VERSION_FOLDER).glob("*.tfrecord*")
    )
    assert [name.rpartition(".")[0] for name in names] == ["imagenet2012-test"] * 2 + [
        "imagenet2012-validation"
    ] * 3


def test_the_command_line_wins(archives: Path, tmp_path: Path) -> None:
    config = write(
        tmp_path / "config.yaml",
        manual_dir=str(archives),
        data_dir=str(tmp_path / "wrong"),
        splits="train",
    )
    done = commands.run(f"--data_dir={tmp_path}/right", f"--config={config}", "--splits=validation")
    assert done.returncode == 0, done.stderr
    dataset = tmp_path / "right" / commands.VERSION_FOLDER
    assert len(list(dataset.glob("*.tfrecord*"))) == 1
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"manual_dri": "x"}, "manual_dir"),
        ({"direct_num_wokers": 2}, "direct_num_workers"),
        ({"config": "other.yaml"}, "config"),
        ({"verbose": "yes please"}, "true or false"),
        ({"data_dir": None}, "needs a value"),
        ({"splits": True}, "needs a value"),
        (["manual_dir"], "mapping"),
        ({1: 2}, "unknown key"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path: Path, content: object, part: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError) as refused:
        options.parse([f"--config={config}"])
    assert str(config) in str(refused.value)
    assert part in str(refused.value)


def test_verbose_in_a_config_is_verbose(archives: Path, tmp_path: Path) -> None:
    config = write(
        tmp_path / "config.yaml",
        manual_dir=str(archives),
        data_dir=str(tmp_path / "data"),
        splits="validation",
        verbose=True,
    )
    assert "INFO" in commands.run(f"--config={config}").stderr


def test_a_config_says_what_is_checked_and_what_is_there_already(
    archives: Path, tmp_path: Path
) -> None:
    config = write(
        tmp_path / "config.yaml",
        manual_dir=str(archives),
        data_dir=str(tmp_path),
        check_images="decode",
        on_bad_image="quarantine",
        max_bad_images=7,
        strict=True,
        overwrite=True,
        fresh=False,
    )
    parsed = options.parse([f"--config={config}", "--max_bad_images=8"])
    assert options.job_from_options(parsed).checks == Checks(
        level="decode", on_bad_image="quarantine", max_bad_images=8, strict=True
    )
    ours = parsed.view_as(options.ImageNetOptions)
    assert (ours.overwrite, ours.fresh) == (True, False)


def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        options.parse([f"--config={tmp_path}/nowhere.yaml"])
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(UsageError, match=r"broken\.yaml"):
        options.parse([f"--config={broken}"])


def test_local_yaml_works_as_it_is(archives: Path, tmp_path: Path) -> None:
    manual_dir = tmp_path / "tensorflow_datasets" / "downloads" / "manual"
    manual_dir.parent.mkdir(parents=True)
    manual_dir.symlink_to(archives)
    done = commands.run(f"--config={LOCAL}", environment={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    dataset = tmp_path / "tensorflow_datasets" / commands.VERSION_FOLDER
    assert (dataset / "dataset_info.json").exists()
