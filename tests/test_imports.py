"""Most of the package needs no Beam, and none of it needs TensorFlow."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import beam_imagenet
from beam_imagenet import __main__

BEAM_MODULES = {"options", "pipeline", "transforms", "local_runner"}
MODULES = [module.name for module in pkgutil.iter_modules(beam_imagenet.__path__)]

# Prints which modules cannot be imported while others are blocked.
SCRIPT = """
import importlib, json, sys
blocked, modules = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(blocked))
failed = {}
for module in modules:
    try:
        importlib.import_module(f"beam_imagenet.{module}")
    except ImportError as error:
        failed[module] = error.name
print(json.dumps(failed))
"""


def fail_without(*blocked: str) -> dict[str, str]:
    """The modules that cannot be imported without others, each with what it lacks."""
    arguments = json.dumps([blocked, MODULES])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, arguments], capture_output=True, text=True, check=True
    )
    failed: dict[str, str] = json.loads(done.stdout)
    return failed


def test_only_the_graph_imports_beam() -> None:
    failed = fail_without("apache_beam", "tensorflow", "tensorflow_datasets")
    assert set(failed) == BEAM_MODULES
    assert {name.partition(".")[0] for name in failed.values()} <= {"apache_beam"}


def test_nothing_imports_tensorflow() -> None:
    assert fail_without("tensorflow", "tensorflow_datasets") == {}


def test_commands_that_only_look_need_no_beam() -> None:
    assert not BEAM_MODULES & set(__main__.COMMANDS.values())


def test_every_module_is_looked_at() -> None:
    assert {"__main__", "tar", "plan", "shard", *BEAM_MODULES} <= set(MODULES)
