"""What is measured, and what the runs say: ratios within rounds, beside what the project asks of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

OURS, TFDS, CP = "ours", "tfds", "cp"
AGAIN, UNCHECKED, UNFLUSHED = "ours, again", "ours, unchecked", "ours, unflushed"
SPEED, COPIES, PEAK = "TFDS / ours", "ours / cp", "largest process of ours, MB"
GROWTH = "time an image, start-up taken off"
CHECKS, FLUSHES = (
    "ours / ours without looking at images",
    "ours / ours without flush and reconciling",
)
DONE = "seconds when the dataset is there"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Archives to convert, as the `sample` command makes them, and tools that do it beside ours."""

    name: str
    counts: tuple[int, int, int]  # images of each of SPLITS
    image_bytes: int
    peers: tuple[str, ...] = (UNCHECKED, UNFLUSHED, TFDS, CP)

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


# The least and the most that a figure may be. A peak's MB are 1,000,000 bytes.
BARS = {
    ("photographs", SPEED): (5, inf),
    ("photographs", COPIES): (0, 2),
    ("photographs", PEAK): (0, 350),
    ("photographs", CHECKS): (0, 1.1),
    ("photographs", FLUSHES): (0, 1.05),
    ("photographs", DONE): (0, 3),
    ("full", SPEED): (6, inf),
    ("full", PEAK): (0, 500),
    ("full", GROWTH): (0.75, 1.25),
    ("full", DONE): (0, 3),
}


def figures(works: Sequence[Work], turns: Turns) -> list[Figure]:
    """What the runs of works that took turns say of the last one."""
    seconds = {turn: [run.seconds for run in row] for turn, row in turns.items()}
    found: list[Figure] = []
    name = works[-1].name
    if (name, TFDS) in turns:
        found.append(_ratio(name, SPEED, over=seconds[name, TFDS], under=seconds[name, OURS]))
    if (name, CP) in turns:
        found.append(_ratio(name, COPIES, over=seconds[name, OURS], under=seconds[name, CP]))
    for what, variant in ((CHECKS, UNCHECKED), (FLUSHES, UNFLUSHED)):
        if (name, variant) in turns:
            found.append(_ratio(name, what, over=seconds[name, OURS], under=seconds[name, variant]))
    again = seconds[name, AGAIN]
    detail = f"{median(again):.2f} (highest {max(again):.2f})"
    found.append(Figure(work=name, what=DONE, value=max(again), detail=detail))
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
