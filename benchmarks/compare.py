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
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "validation", "test")
OURS, TFDS, CP = "ours", "tfds", "cp"
SPEED, COPIES, PEAK = "TFDS / ours", "ours / cp", "largest process of ours, MB"
GROWTH = "time an image, start-up taken off"

_say = functools.partial(print, file=sys.stderr, flush=True)
_CLONING = frozenset({"bcachefs", "btrfs", "overlay", "xfs", "zfs"})
"""File systems on which a plain `cp` may share the archives' blocks and copy nothing."""


class RunError(Exception):
    """A process failed, or wrote something else than it should; worded for the user."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Archives to convert, as the `sample` command makes them, and tools that do it beside ours."""

    name: str
    counts: tuple[int, int, int]  # images of each of SPLITS
    image_bytes: int
    peers: tuple[str, ...] = (TFDS, CP)

    @property
    def images(self) -> int:
        """Images of all splits."""
        return sum(self.counts)

    @property
    def estimated_bytes(self) -> int:
        """About the size of the archives: an image has a header and half a block of padding."""
        return self.images * (512 + 256 + self.image_bytes) + min(self.counts[0], 1000) * 6_000


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process, its descendants and a `sync` took; peak memory is that of the largest."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


@dataclass(frozen=True, kw_only=True)
class Run(Usage):
    """One measured run, with the bytes of the archives it read and of what it wrote."""

    work: str
    tool: str
    round: int
    images: int
    archive_bytes: int
    written_bytes: int


Turns = dict[tuple[str, str], list[Run]]  # by work and tool, in the order of rounds


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What the runs of a work say; `detail` is its value and more, for a person."""

    work: str
    what: str
    value: float
    detail: str


PHOTOGRAPHS = Work(name="photographs", counts=(38_000, 1_000, 1_000), image_bytes=109_600)
FULL = Work(name="full", counts=(1_281_167, 50_000, 100_000), image_bytes=1_900)
TENTH = Work(name="tenth", counts=(128_117, 5_000, 10_000), image_bytes=1_900, peers=())
STARTUP = Work(name="startup", counts=(1_000, 0, 0), image_bytes=1_900, peers=())

# Works that take turns, the last being what counts. Of three, the first is taken off as start-up.
GROUPS = {"photographs": (PHOTOGRAPHS,), "full": (STARTUP, TENTH, FULL), "tenth": (TENTH,)}

# The least and the most that a figure may be. A peak's MB are 1,000,000 bytes.
BARS = {
    ("photographs", SPEED): (5, inf),
    ("photographs", COPIES): (0, 2),
    ("photographs", PEAK): (0, 350),
    ("full", SPEED): (6, inf),
    ("full", PEAK): (0, 500),
    ("full", GROWTH): (0.75, 1.25),
}


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
    for number, (work, tool) in itertools.product(range(1, rounds + 1), turns):
        folder = archives / work.name
        with _fresh(output):
            usage = run_timed(_command(tool, archives=folder, output=output), log=log)
            if number == 1 and tool != CP:
                _check_dataset(work, data_dir=output, archives=folder)
            run = Run(
                **dataclasses.asdict(usage),
                work=work.name,
                tool=tool,
                round=number,
                images=work.images,
                archive_bytes=_size(folder),
                written_bytes=_size(output),
            )
        runs[work.name, tool].append(run)
        _say(f"{work.name}, round {number} of {rounds}: {tool} took {run.seconds:.1f} s")
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
    if tool == OURS:
        folders = [f"--manual_dir={archives}", f"--data_dir={output}"]
        return [sys.executable, "-m", "beam_imagenet", *folders]
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


def figures(works: Sequence[Work], turns: Turns) -> list[Figure]:
    """What the runs of works that took turns say of the last one."""
    seconds = {turn: [run.seconds for run in row] for turn, row in turns.items()}
    found: list[Figure] = []
    name = works[-1].name
    if (name, TFDS) in turns:
        found.append(_ratio(name, SPEED, over=seconds[name, TFDS], under=seconds[name, OURS]))
    if (name, CP) in turns:
        found.append(_ratio(name, COPIES, over=seconds[name, OURS], under=seconds[name, CP]))
    peak = max(run.peak_mib for run in turns[name, OURS]) * 2**20 / 1e6
    found.append(Figure(work=name, what=PEAK, value=peak, detail=f"{peak:.0f}"))
    if len(works) == 3:
        startup, tenth, full = works
        starts = seconds[startup.name, OURS]
        of_full, of_tenth = (
            [
                (end - start) * 1e6 / (work.images - startup.images)
                for end, start in zip(seconds[work.name, OURS], starts, strict=True)
            ]
            for work in (full, tenth)
        )
        growth = _ratio(name, GROWTH, over=of_full, under=of_tenth)
        times = f"full {median(of_full):.1f} us, tenth {median(of_tenth):.1f} us"
        detail = f"{times}, ratio {growth.detail}"
        found.append(dataclasses.replace(growth, detail=detail))
    return found


def _ratio(work: str, what: str, *, over: Sequence[float], under: Sequence[float]) -> Figure:
    rounds = [a / b for a, b in zip(over, under, strict=True)]
    listed = ", ".join(f"{ratio:.2f}" for ratio in rounds)
    of_medians = median(over) / median(under)
    detail = f"{median(rounds):.2f} (rounds {listed}; of medians {of_medians:.2f})"
    return Figure(work=work, what=what, value=median(rounds), detail=detail)


def report(turns: Turns, found: Sequence[Figure]) -> str:
    """Two Markdown tables: medians of each work and tool, and the figures beside their bars."""
    head = "| work | tool | seconds | lowest - highest | CPU seconds | peak MiB |"
    lines = [head, "|---|---|---:|---:|---:|---:|"]
    for (work, tool), row in turns.items():
        seconds = [run.seconds for run in row]
        times = f"{median(seconds):.2f} | {min(seconds):.2f} - {max(seconds):.2f}"
        cpu, peak = median(run.cpu_seconds for run in row), median(run.peak_mib for run in row)
        lines.append(f"| {work} | {tool} | {times} | {cpu:.2f} | {peak:.0f} |")
    lines += ["", "| work | figure | found | asked | |", "|---|---|---|---|---|"]
    for figure in found:
        least, most = BARS.get((figure.work, figure.what), (0, inf))
        bars = [f"at least {least:g}"] * (least > 0) + [f"at most {most:g}"] * (most < inf)
        verdict = ("NOT reached", "reached")[least <= figure.value <= most] if bars else ""
        cells = [figure.work, figure.what, figure.detail, ", ".join(bars), verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
    add("--skip", action="append", choices=(TFDS, CP), default=[], help="leaves a peer out")
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
