"""What the user asked for: the command line and YAML configs, checked before anything starts.

Our options are ordinary Beam pipeline options, so every engine and template can carry them. Beam logs
an option that it does not know and goes on; here the nearest known one is named and nothing starts.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import yaml
from apache_beam.options import pipeline_options as beam_options

from beam_imagenet import archives, fingerprint
from beam_imagenet.errors import UsageError
from beam_imagenet.model import CHECK_LEVELS, ON_BAD_IMAGE, Checks, Job
from beam_imagenet.space import readable_size
from beam_imagenet.target import Target

_CHECKS = Checks()
USAGE = "python -m beam_imagenet --manual_dir=DIR --data_dir=DIR [options] [Beam options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds our options, in the groups that `--help` shows."""
    where = parser.add_argument_group("archives and dataset")
    archives.add_arguments(where)
    what = parser.add_argument_group("what is written")
    what.add_argument(
        "--num_shards", metavar="SPLIT:N,..", help="shards of a split, e.g. train:256 [TFDS's rule]"
    )
    what.add_argument(
        "--file_name",
        choices=("base", "member"),
        default="base",
        help="file_name is the base name, or the path in the archive [base]",
    )
    check = parser.add_argument_group("what is checked")
    check.add_argument(
        "--check_images",
        choices=CHECK_LEVELS,
        default=_CHECKS.level,
        help="how closely each image is looked at [header]",
    )
    check.add_argument(
        "--on_bad_image",
        choices=ON_BAD_IMAGE,
        default=_CHECKS.on_bad_image,
        help="stop at what is no image, leave it out, or carry it over [fail]",
    )
    check.add_argument(
        "--max_bad_images",
        metavar="N",
        type=_count,
        default=_CHECKS.max_bad_images,
        help="more images left out than these, and nothing is published [100]",
    )
    check.add_argument(
        "--strict", action="store_true", help="images that are merely suspect are bad ones"
    )
    again = parser.add_argument_group("what is there already")
    again.add_argument(
        "--overwrite",
        action="store_true",
        help="replaces splits that were made otherwise; readers see the old ones until all is done",
    )
    again.add_argument(
        "--fresh",
        action="store_true",
        help="writes every shard anew, and discards what another run has begun",
    )
    how = parser.add_argument_group("how it runs")
    how.add_argument(
        "--config", metavar="FILE", help="options from a YAML file; the command line wins"
    )
    how.add_argument("--verbose", action="store_true", help="Beam's log and full tracebacks")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return int(text)


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
        "\ncommands, each with a --help of its own:\n"
        "  inspect                     looks at the archives before any work\n"
        "  clean                       removes what no dataset points to\n"
        "  sample --out=DIR            makes sample archives\n"
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
    raise UsageError(
        f"Unknown option {name}{archives.nearest(name, known)} See --help and --help_beam."
    )


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
            raise UsageError(
                f"--config={path}: unknown key {key!r}{archives.nearest(str(key), known)}"
            )
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
    """Finds the archives and tells what was asked for; what is there already is `target.py`'s to see.

    Raises:
        UsageError: There is nothing to do, or it cannot be done as asked.
        StorageError: An archive cannot be read.
    """
    ours = options.view_as(ImageNetOptions)
    sources = archives.find_sources(ours)
    num_shards = _shard_counts(ours.num_shards, [source.split for source in sources])
    checks = Checks(
        level=ours.check_images,
        on_bad_image=ours.on_bad_image,
        max_bad_images=ours.max_bad_images,
        strict=ours.strict,
    )
    job = Job(
        dataset_dir=str(archives.dataset_dir(ours)),
        version=ours.dataset_version,
        keep_member_path=ours.file_name == "member",
        checks=checks,
        sources=tuple(
            dataclasses.replace(source, num_shards=num_shards.get(source.split))
            for source in sources
        ),
    )
    return fingerprint.with_fingerprints(job)


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


def describe(target: Target) -> str:
    """The lines that a run starts with."""
    lines = [
        f"{source.split:<10}  {_shown(source.archive)}  ({readable_size(source.size)})"
        for source in target.job.sources
    ]
    lines += [f"{split:<10}  is there already, and stays as it is" for split in target.complete]
    lines.append(f"{'dataset':<10}  {_shown(target.job.dataset_dir)}")
    lines += [
        f"{split:<10}  {len(kept):,} of {kept[0].num_shards:,} shards kept"
        for split, kept in target.kept.items()
        if kept
    ]
    return "\n".join(lines)


def _shown(path: str) -> str:
    """A path as short as the current folder allows."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
