"""Measures this job against TFDS's own builder and `cp`, side by side on the same archives.

Whole processes are timed from outside, each with a `sync` that puts its output on the disk. They
take turns, so that whatever slows the machine for a while slows all of them: the ratios within a
round are worth more than the seconds. benchmarks/README.md tells how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from figures import (
    AGAIN,
    CP,
    OURS,
    TFDS,
    UNCHECKED,
    UNFLUSHED,
    Figure,
    Run,
    Turns,
    Usage,
    Work,
    figures,
    report,
)

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "validation", "test")

_say = functools.partial(print, file=sys.stderr, flush=True)
_CLONING = frozenset({"bcachefs", "btrfs", "overlay", "xfs", "zfs"})
"""File systems on which a plain `cp` may share the archives' blocks and copy nothing."""


class RunError(Exception):
    """A process failed, or wrote something else than it should; worded for the user."""


PHOTOGRAPHS = Work(name="photographs", counts=(38_000, 1_000, 1_000), image_bytes=109_600)
FULL = Work(name="full", counts=(1_281_167, 50_000, 100_000), image_bytes=1_900)
TENTH = Work(name="tenth", counts=(128_117, 5_000, 10_000), image_bytes=1_900, peers=())
STARTUP = Work(name="startup", counts=(1_000, 0, 0), image_bytes=1_900, peers=())

# Works that take turns, the last being what counts. Of three, the first is taken off as start-up.
GROUPS = {"photographs": (PHOTOGRAPHS,), "full": (STARTUP, TENTH, FULL), "tenth": (TENTH,)}


def measure(
    works: Sequence[Work], *, skip: Sequence[str], rounds: int, archives: Path, scratch: Path
) -> Turns:
    """Runs works in turns, `rounds` times; all outputs in `scratch` are deleted again.

    A folder in `archives` holds those of each work; one that is missing is made. Peers in `skip`
    are left out. Raises RunError.
    """
    log, output = scratch / "log", scratch / "output"
    for work in works:
        if not (archives / work.name).exists():
            _make_archives(work, archives, log=log)
        _say(f"{work.name}: a cp that does not count, so that all find the archives in memory")
        with _fresh(output):
            run_timed(_command(CP, archives=archives / work.name, output=output), log=log)
    turns = [(work, OURS) for work in works]
    turns += [(work, peer) for work in works for peer in work.peers if peer not in skip]
    runs: Turns = defaultdict(list)
    for number, place in itertools.product(range(1, rounds + 1), range(len(turns))):
        # Each round begins one later: what ran before matters to the disk and the page cache.
        work, tool = turns[(place + number) % len(turns)]
        folder = archives / work.name
        with _fresh(output):
            # The second run of ours finds the dataset there.
            for name in (OURS, AGAIN) if tool == OURS else (tool,):
                usage = run_timed(_command(name, archives=folder, output=output), log=log)
                run = Run(
                    **dataclasses.asdict(usage),
                    work=work.name,
                    tool=name,
                    round=number,
                    images=work.images,
                    archive_bytes=_size(folder),
                    written_bytes=_size(output),
                )
                runs[work.name, name].append(run)
                _say(f"{work.name}, round {number} of {rounds}: {name} took {run.seconds:.1f} s")
            if number == 1 and tool != CP:
                _check_dataset(work, data_dir=output, archives=folder)
    return runs


def _make_archives(work: Work, archives: Path, *, log: Path) -> None:
    _say(f"{work.name}: making archives of about {work.estimated_bytes / 1e9:.2f} GB")
    sizes = [f"--{split}_images={count}" for split, count in zip(SPLITS, work.counts, strict=True)]
    sample = [sys.executable, "-m", "beam_imagenet", "sample", "--seed=0", *sizes]
    # Renamed when complete, so that an interrupted run leaves nothing that looks like a work.
    with tempfile.TemporaryDirectory(prefix=".making-", dir=archives) as name:
        made = Path(name, work.name)
        run_timed([*sample, f"--image_bytes={work.image_bytes}", f"--out={made}"], log=log)
        made.rename(archives / work.name)


def _command(tool: str, *, archives: Path, output: Path) -> list[str]:
    folders = [f"--manual_dir={archives}", f"--data_dir={output}"]
    if tool in (OURS, AGAIN):
        return [sys.executable, "-m", "beam_imagenet", *folders]
    if tool in (UNCHECKED, UNFLUSHED):
        variant = str(ROOT / "benchmarks" / "variant.py")
        return [sys.executable, variant, tool.removeprefix("ours, "), *folders]
    if tool == TFDS:
        builder = ROOT / "benchmarks" / "tfds_builder.py"
        return [sys.executable, str(builder), str(archives), str(output)]
    copying = ["cp", "--reflink=never"] if _file_system(output) in _CLONING else ["cp"]
    return [*copying, *map(str, sorted(archives.iterdir())), str(output)]


@contextlib.contextmanager
def _fresh(folder: Path) -> Iterator[None]:
    """An empty folder, whose deletion is on the disk before the next run starts."""
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder)
        subprocess.run(["sync"], check=True)


def run_timed(command: Sequence[str], *, log: Path) -> Usage:
    """Runs a command and `sync` after it; raises RunError with the end of its output."""
    start = time.monotonic()
    with log.open("wb") as output:
        # In ROOT, so that `-m beam_imagenet` is this checkout; in a group that can be ended as one.
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
    try:
        # Covers descendants that were waited for, as the job's workers are: times are summed,
        # ru_maxrss is the largest process's. On Linux that starts at the memory of whoever started
        # the process, which is why this script imports neither Beam nor TFDS.
        _, status, used = os.wait4(process.pid, 0)
    except BaseException:
        _kill(process)
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        failure = f"{' '.join(command)}\nended with exit status {process.returncode}:"
        raise RunError("\n  ".join([failure, *lines]))
    subprocess.run(["sync"], check=True)
    return Usage(
        seconds=time.monotonic() - start,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_mib=used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for _ in range(20):  # its children are somebody else's to wait for, and may still write
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def _check_dataset(work: Work, *, data_dir: Path, archives: Path) -> None:
    found = list(data_dir.glob("imagenet2012/*/dataset_info.json"))
    if len(found) != 1:
        raise RunError(f"{work.name}: the run ended well, but wrote no dataset_info.json.")
    splits = json.loads(found[0].read_bytes())["splits"]
    written = {split["name"]: sum(map(int, split["shardLengths"])) for split in splits}
    asked = {split: count for split, count in zip(SPLITS, work.counts, strict=True) if count}
    if written != asked:
        raise RunError(f"{archives} should give {asked}, but the dataset has {written} images.")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def surroundings(scratch: Path) -> dict[str, object]:
    """What the figures depend on apart from the code."""
    ours = [sys.executable, "-c", "import beam_imagenet as ours; print(ours.__version__)"]
    version = subprocess.check_output(ours, cwd=ROOT, text=True).strip()
    versions = {"python": sys.version.split()[0], "beam_imagenet": version}
    for package in ("apache-beam", "tensorflow-datasets", "tensorflow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "file_system": _file_system(scratch),
        "versions": versions,
    }


def _file_system(folder: Path) -> str | None:
    """Type of the file system that `folder` is on; None where /proc does not tell."""
    mounts = Path("/proc/self/mounts")
    lines = mounts.read_text(encoding="utf-8").splitlines() if mounts.exists() else []
    # Of file systems mounted in one place, the last is the one seen.
    kinds = {Path(words[1]): words[2] for words in map(str.split, lines)}
    return next((kinds[path] for path in (folder, *folder.parents) if path in kinds), None)


def lacking_room(works: Sequence[Work], *, archives: Path, scratch: Path) -> str | None:
    """What to tell the user if the works' archives, datasets and temporary files may not fit."""
    missing = [work.estimated_bytes for work in works if not (archives / work.name).exists()]
    # A dataset, TFDS's temporary buckets, and as much again for what is freed late.
    outputs = 3 * max(work.estimated_bytes for work in works)
    same = archives.stat().st_dev == scratch.stat().st_dev
    for folder, size in ((scratch, outputs + sum(missing) * same), (archives, sum(missing))):
        if (free := shutil.disk_usage(folder).free) < size:
            return f"{folder} has {free / 1e9:.1f} GB free, but {size / 1e9:.1f} GB may be needed"
    return None


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="This job beside TFDS's own builder and cp.")
    add = parser.add_argument
    add("--work", action="append", choices=GROUPS, help="may be repeated [photographs and full]")
    add("--runs", type=int, default=3, metavar="N", help="of each [3]")
    add(
        "--skip",
        action="append",
        choices=(TFDS, CP, UNCHECKED, UNFLUSHED),
        default=[],
        help="leaves a peer out",
    )
    add("--scratch", type=Path, default=tempfile.gettempdir(), metavar="DIR", help="of outputs")
    add("--archives", type=Path, metavar="DIR", help="keeps archives, or has them [made anew]")
    add("--json", type=Path, metavar="FILE", help="gets every run and figure")
    options = parser.parse_args(argv)
    if options.runs < 1:
        parser.error("--runs takes at least 1")
    options.scratch = options.scratch.resolve()
    options.archives = options.archives and options.archives.resolve()
    for folder in (options.scratch, options.archives, options.json and options.json.parent):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    if TFDS not in options.skip and importlib.util.find_spec("tensorflow_datasets") is None:
        parser.error("tensorflow_datasets is not installed: install it, or --skip tfds")
    names = dict.fromkeys(options.work or ("photographs", "full"))
    # Full runs a tenth anyway.
    options.groups = [GROUPS[name] for name in names if not (name == "tenth" and "full" in names)]
    for works in options.groups:
        scratch = options.scratch
        if lacking := lacking_room(works, archives=options.archives or scratch, scratch=scratch):
            parser.error(lacking)
    return options


def main(argv: Sequence[str]) -> int:
    """Runs what the command line asks for; 0 is measured, 1 something failed, 2 a wrong call."""
    options = _parse(argv)
    turns: Turns = {}
    found: list[Figure] = []
    try:
        for works in options.groups:
            with tempfile.TemporaryDirectory(prefix="compare-", dir=options.scratch) as name:
                of_group = measure(
                    works,
                    skip=options.skip,
                    rounds=options.runs,
                    archives=options.archives or Path(name),
                    scratch=Path(name),
                )
            turns |= of_group
            found += figures(works, of_group)
    except (RunError, KeyboardInterrupt) as error:
        _say(error if str(error) else "Interrupted; what was made has been deleted.")
        return 1
    print(report(turns, found))
    if options.json is not None:
        content = surroundings(options.scratch)
        content["runs"] = [dataclasses.asdict(run) for row in turns.values() for run in row]
        content["figures"] = [dataclasses.asdict(figure) for figure in found]
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    for end in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(end) != signal.SIG_IGN:  # as it is under nohup
            signal.signal(end, signal.default_int_handler)  # cleans up as Ctrl-C does
    sys.exit(main(sys.argv[1:]))
