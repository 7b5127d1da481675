"""What the user asked for: the command line and YAML configs, checked before anything starts.

Our options are ordinary Beam pipeline options, so every engine and template can carry them. Beam logs
an option that it does not know and goes on; here the nearest known one is named and nothing starts.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import yaml
from apache_beam.options import pipeline_options as beam_options

from beam_imagenet import storage
from beam_imagenet.commit import DATASET_INFO
from beam_imagenet.errors import UsageError
from beam_imagenet.model import ARCHIVES, DATASET_NAME, SPLITS, Job, Source

VERSIONS = ("5.1.0", "5.0.0")

USAGE = "python -m beam_imagenet --manual_dir=DIR --data_dir=DIR [options] [Beam options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds our options, in the groups that `--help` shows."""
    where = parser.add_argument_group("archives and dataset")
    where.add_argument(
        "--manual_dir", metavar="DIR", help="folder of the archives [DATA_DIR/downloads/manual]"
    )
    where.add_argument(
        "--data_dir",
        metavar="DIR",
        help="where datasets go [$TFDS_DATA_DIR or ~/tensorflow_datasets]",
    )
    for split in SPLITS:
        where.add_argument(
            f"--{split}", metavar="PATH", help=f"the {split} archive, if it lies elsewhere"
        )
    what = parser.add_argument_group("what is written")
    what.add_argument(
        "--splits", metavar="A,B", help="splits to convert [those whose archives are there]"
    )
    what.add_argument(
        "--dataset_version",
        choices=VERSIONS,
        default=VERSIONS[0],
        help="5.0.0 has no test split [5.1.0]",
    )
    what.add_argument(
        "--num_shards", metavar="SPLIT:N,..", help="shards of a split, e.g. train:256 [TFDS's rule]"
    )
    what.add_argument(
        "--file_name",
        choices=("base", "member"),
        default="base",
        help="file_name is the base name, or the path in the archive [base]",
    )
    how = parser.add_argument_group("how it runs")
    how.add_argument(
        "--config", metavar="FILE", help="options from a YAML file; the command line wins"
    )
    how.add_argument("--verbose", action="store_true", help="Beam's log and full tracebacks")


class ImageNetOptions(beam_options.PipelineOptions):
    """The options of beam_imagenet, as Beam sees them."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        add_arguments(parser)


class _Parser(beam_options._BeamArgumentParser):
    """Beam's parser, with errors in our own words instead of 200 lines of usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See --help, and --help_beam for Beam's options.")


def full_parser() -> argparse.ArgumentParser:
    """A parser of every option there is: ours, and those of all Beam option classes."""
    parser: argparse.ArgumentParser = _Parser(
        prog="python -m beam_imagenet", usage=USAGE, allow_abbrev=False, add_help=False
    )
    for options in {
        str(kind): kind for kind in beam_options.PipelineOptions.__subclasses__()
    }.values():
        options._add_argparse_args(parser)
    return parser


def help_text() -> str:
    """Our options, for a person."""
    parser = argparse.ArgumentParser(
        prog="python -m beam_imagenet",
        usage=USAGE,
        add_help=False,
        description="Converts the ILSVRC-2012 archives to the TFDS dataset imagenet2012.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=100),
    )
    add_arguments(parser)
    how = parser.add_argument_group("help")
    how.add_argument("--help", action="store_true", help="this page")
    how.add_argument(
        "--help_beam",
        action="store_true",
        help="Beam's own options: --runner, --direct_num_workers, ...",
    )
    return parser.format_help() + (
        "\ncommand:\n  sample --out=DIR            makes sample archives; sample --help tells more\n"
    )


def parse(arguments: Sequence[str]) -> beam_options.PipelineOptions:
    """Reads the command line, and the config that it names.

    Raises:
        UsageError: An option is unknown or has a wrong value.
    """
    parser = full_parser()
    _require_known(parser, arguments)
    config = parser.parse_known_args(list(arguments))[0].config
    if config is not None:
        arguments = [*_config_arguments(parser, Path(config), arguments), *arguments]
        _require_known(parser, arguments)
    options = beam_options.PipelineOptions(list(arguments))
    _choose_running_mode(options, arguments)
    return options


def _require_known(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    unknown = parser.parse_known_args(list(arguments))[1]
    if not unknown:
        return
    name = unknown[0].partition("=")[0]
    known = list(parser._option_string_actions)
    raise UsageError(f"Unknown option {name}{_nearest(name, known)} See --help and --help_beam.")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; the nearest known one is {close[0]}." if close else "."


def _config_arguments(
    parser: argparse.ArgumentParser, path: Path, given: Sequence[str]
) -> list[str]:
    """A YAML config as command-line arguments, less what the command line itself says."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--config={path} cannot be read: {error}") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"--config={path} must be a mapping of option names to values.")
    actions = parser._option_string_actions
    overridden = {
        actions[flag].dest
        for flag in (argument.partition("=")[0] for argument in given)
        if flag in actions
    }
    arguments: list[str] = []
    for key, value in content.items():
        action = actions.get(f"--{key}")
        if action is None or key == "config":
            known = [flag.removeprefix("--") for flag in actions if flag != "--config"]
            raise UsageError(f"--config={path}: unknown key {key!r}{_nearest(str(key), known)}")
        if action.dest not in overridden:
            arguments.extend(_as_arguments(action, f"--{key}", value, path))
    return arguments


def _as_arguments(action: argparse.Action, flag: str, value: object, path: Path) -> list[str]:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"--config={path}: {flag.removeprefix('--')} must be true or false.")
        return [flag] if value else []
    if value is None or isinstance(value, bool):
        raise UsageError(
            f"--config={path}: {flag.removeprefix('--')} needs a value, not {value!r}."
        )
    if isinstance(value, Mapping):
        value = [f"{key}:{item}" for key, item in value.items()]
    if isinstance(value, list):
        if action.dest in ("splits", "num_shards"):
            return [f"{flag}={','.join(map(str, value))}"]
        return [f"{flag}={item}" for item in value]
    return [f"{flag}={value}"]


def _choose_running_mode(options: beam_options.PipelineOptions, arguments: Sequence[str]) -> None:
    direct = options.view_as(beam_options.DirectOptions)
    if direct.direct_running_mode == "multi_threading":
        raise UsageError(
            "--direct_running_mode=multi_threading is refused: Beam 2.77 loses elements in this mode without "
            "an error (3 of 19 runs lost up to 12,500 of 1,431,167 images). Leave the option out, or use "
            "multi_processing."
        )
    if direct.direct_num_workers < 0:
        raise UsageError("--direct_num_workers cannot be negative; 0 means all cores.")
    flags = {argument.partition("=")[0] for argument in arguments}
    if "--direct_running_mode" not in flags:
        direct.direct_running_mode = "multi_processing"
    if "--direct_num_workers" not in flags and direct.direct_running_mode == "multi_processing":
        direct.direct_num_workers = 0  # all cores


def job_from_options(options: beam_options.PipelineOptions) -> Job:
    """Finds the archives and decides what the run does.

    Raises:
        UsageError: There is nothing to do, or it cannot be done as asked.
        StorageError: An archive cannot be read.
    """
    ours = options.view_as(ImageNetOptions)
    data_dir = _local(ours.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    manual_dir = _local(ours.manual_dir) if ours.manual_dir else data_dir / "downloads" / "manual"
    version = ours.dataset_version
    found = {
        split: path
        for split in SPLITS
        if (path := _find_archive(split, getattr(ours, split), manual_dir)) is not None
    }
    wanted = _wanted_splits(ours.splits, found, manual_dir, version=version)
    for split in SPLITS:
        if getattr(ours, split) and split not in wanted:
            raise UsageError(f"--{split} names an archive of a split that is not converted.")
    num_shards = _shard_counts(ours.num_shards, wanted)
    dataset_dir = data_dir / DATASET_NAME / version
    require_no_dataset(dataset_dir)
    return Job(
        run_id=uuid.uuid4().hex,
        dataset_dir=str(dataset_dir),
        version=version,
        keep_member_path=ours.file_name == "member",
        sources=tuple(
            Source(
                split=split,
                archive=str(found[split]),
                size=storage.file_size(str(found[split])),
                num_shards=num_shards.get(split),
            )
            for split in wanted
        ),
    )


def require_no_dataset(dataset_dir: Path) -> None:
    """Raises UsageError where a dataset is there already."""
    if (dataset_dir / DATASET_INFO).exists():
        raise UsageError(
            f"{dataset_dir} holds a dataset already. Remove that folder to make it anew, or choose another "
            "--data_dir."
        )


def _local(path: str) -> Path:
    if "://" in path:
        raise UsageError(
            f"{path}: only folders and files of a file system can be used in this version."
        )
    return Path(path).expanduser().absolute()


def _find_archive(split: str, given: str | None, manual_dir: Path) -> Path | None:
    if given:
        path = _local(given)
        if not path.is_file():
            raise UsageError(f"--{split}={given}: there is no such file.")
        return path
    there = [manual_dir / name for name in ARCHIVES[split] if (manual_dir / name).is_file()]
    if len(there) > 1:
        raise UsageError(
            f"{manual_dir} holds two {split} archives, {there[0].name} and {there[1].name}. "
            f"Say which one to use: --{split}={there[0]}"
        )
    return there[0] if there else None


def _wanted_splits(
    given: str | None, found: Mapping[str, Path], manual_dir: Path, *, version: str
) -> tuple[str, ...]:
    possible = SPLITS if version >= "5.1.0" else SPLITS[:2]
    if given is None:
        wanted = tuple(split for split in possible if split in found)
        if not wanted:
            names = [" or ".join(ARCHIVES[split]) for split in possible]
            raise UsageError(
                f"No archive was found. Looked in {manual_dir} for: {'; '.join(names)}. Put the archives of "
                "https://image-net.org/download-images there, or say where they are with --manual_dir."
            )
        return wanted
    names = [name for name in given.split(",") if name]
    for name in names:
        if name not in SPLITS:
            raise UsageError(
                f"--splits={given}: there is no split {name!r}{_nearest(name, SPLITS)}"
            )
        if name not in possible:
            raise UsageError(f"--splits={given}: version {version} has no {name} split; 5.1.0 has.")
        if name not in found:
            raise UsageError(
                f"--splits={given}: the {name} archive was not found. Looked in {manual_dir} for "
                f"{' or '.join(ARCHIVES[name])}. Say where it is with --manual_dir or --{name}."
            )
    if not names:
        raise UsageError("--splits names no split.")
    return tuple(split for split in SPLITS if split in names)


def _shard_counts(given: str | None, wanted: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in given.split(",") if given is not None else ():
        match = re.fullmatch(r"(\w+):([1-9]\d{0,4})", part)
        if match is None or match[1] not in wanted or match[1] in counts:
            raise UsageError(
                f"--num_shards={given}: {part!r} is not SPLIT:N, with N from 1 to 99999 and a split that is "
                f"converted ({', '.join(wanted)}), each once."
            )
        counts[match[1]] = int(match[2])
    return counts


def describe(job: Job) -> str:
    """The lines that a run starts with."""
    lines = [
        f"{source.split:<10}  {_shown(source.archive)}  ({_readable_size(source.size)})"
        for source in job.sources
    ]
    return "\n".join([*lines, f"{'dataset':<10}  {_shown(job.dataset_dir)}"])


def _shown(path: str) -> str:
    """A path as short as the current folder allows."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _readable_size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
