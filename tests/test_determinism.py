"""The same archives and options give the same bytes, whatever runs the job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import commands

SHARDS = "--num_shards=train:7,validation:3"


@pytest.fixture(scope="module")
def expected(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    data_dir = tmp_path_factory.mktemp("expected")
    files = commands.dataset_files(
        commands.convert(manual_dir=archives, data_dir=data_dir, options=(SHARDS,))
    )
    assert len(files) == 7 + 3 + 1 + 3  # shards, and the three files that describe them
    return files


@pytest.mark.parametrize(
    "options",
    [
        ("--direct_num_workers=1",),
        ("--direct_num_workers=2", "--runner=DirectRunner"),
        ("--direct_num_workers=3", "--runner=direct"),
        ("--direct_running_mode=in_memory",),
    ],
    ids=["one worker", "two workers, DirectRunner by name", "three workers", "no worker process"],
)
def test_every_file_is_the_same_for_any_number_of_workers(
    archives: Path, expected: dict[str, bytes], tmp_path: Path, options: tuple[str, ...]
) -> None:
    dataset = commands.convert(manual_dir=archives, data_dir=tmp_path, options=(SHARDS, *options))
    files = commands.dataset_files(dataset)
    assert files.keys() == expected.keys()
    assert [name for name, content in files.items() if content != expected[name]] == []


def test_no_network_is_asked_for_and_nothing_else_is_written(
    archives: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    home, hooks, data_dir = tmp_path / "home", tmp_path / "hooks", tmp_path / "data"
    home.mkdir()
    hooks.mkdir()
    attempts = tmp_path / "attempts"
    # Python imports this module at start-up; the hook sees each connection and name look-up.
    (hooks / "sitecustomize.py").write_text(
        "import sys\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'urllib.Request'):\n"
        "        if not any(local in repr(arguments) for local in ('localhost', '127.0.0.1', '::1')):\n"
        f"            open({str(attempts)!r}, 'a').write(f'{{event}} {{arguments}}\\n')\n"
        "            raise OSError('no network')\n"
        "sys.addaudithook(hook)\n"
    )
    done = commands.run(
        f"--manual_dir={archives}",
        f"--data_dir={data_dir}",
        SHARDS,
        "--runner=DirectRunner",
        environment={"HOME": str(home), "PYTHONPATH": str(hooks)},
    )
    assert done.returncode == 0, done.stderr
    assert not attempts.exists(), attempts.read_text()
    assert list(home.iterdir()) == []
    assert commands.dataset_files(data_dir / commands.VERSION_FOLDER) == expected
