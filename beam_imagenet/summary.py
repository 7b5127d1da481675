"""What a run did, as data (`result.json`) and as the table that a person sees.

Pure: knows nothing of Beam or of files. `result.json` is the one file of a dataset's folder that tells
of the run itself, so it is the one that differs between runs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from beam_imagenet import labels
from beam_imagenet.model import SPLITS, ColorFix, Job, ShardResult, SplitPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One row of the table.

    Attributes:
        split: Name of the split.
        images: Records written.
        num_bytes: Bytes of their serialised examples.
        shards: Files.
        classes: Distinct labels; 0 in test.
        fixes: Images that were converted, by name.
        worker_seconds: Time that workers spent on its shards, summed.
    """

    split: str
    images: int
    num_bytes: int
    shards: int
    classes: int
    fixes: tuple[ColorFix, ...]
    worker_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a run that was committed.

    Attributes:
        run_id: The launcher's id of the run.
        version: Dataset version.
        finished: Seconds since the epoch.
        splits: One row a split.
    """

    run_id: str
    version: str
    finished: float
    splits: tuple[SplitSummary, ...]


def summarize(
    job: Job, plans: Sequence[SplitPlan], results: Sequence[ShardResult], *, finished: float
) -> RunResult:
    """Adds up what was written."""
    rows = []
    for plan in sorted(plans, key=lambda plan: SPLITS.index(plan.split)):
        written = [result for result in results if result.split == plan.split]
        fixes = [fix for result in written for fix in result.fixes]
        rows.append(
            SplitSummary(
                split=plan.split,
                images=sum(result.num_examples for result in written),
                num_bytes=sum(result.num_bytes for result in written),
                shards=len(written),
                classes=plan.num_classes,
                fixes=tuple(sorted(fixes, key=lambda fix: fix.file_name)),
                worker_seconds=sum(result.seconds for result in written),
            )
        )
    return RunResult(run_id=job.run_id, version=job.version, finished=finished, splits=tuple(rows))


def to_json(result: RunResult) -> bytes:
    """The content of `result.json`."""
    return (json.dumps(dataclasses.asdict(result), indent=2) + "\n").encode("utf-8")


def from_json(content: bytes) -> RunResult:
    """Reads `to_json` back.

    Raises:
        ValueError, KeyError, TypeError: It is no `result.json`.
    """
    fields = json.loads(content)
    if not isinstance(fields, dict):
        raise ValueError("a result is a mapping")
    splits = tuple(
        SplitSummary(**{**row, "fixes": tuple(ColorFix(**fix) for fix in row["fixes"])})
        for row in fields.pop("splits")
    )
    return RunResult(splits=splits, **fields)


def table(result: RunResult, *, seconds: float) -> str:
    """The table and the notes that end a run.

    Args:
        result: What was done.
        seconds: Wall time of the run.
    """
    head = ("split", "images", "bytes", "shards", "classes", "fixes", "write s", "MB/s")
    rows = [head]
    for row in result.splits:
        speed = row.num_bytes / max(row.worker_seconds, 1e-9) / 1e6
        rows.append(
            (
                row.split,
                f"{row.images:,}",
                f"{row.num_bytes:,}",
                f"{row.shards:,}",
                f"{row.classes:,}" if row.classes else "-",
                f"{len(row.fixes):,}",
                f"{row.worker_seconds:.1f}",
                f"{speed:,.0f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
    total = sum(row.num_bytes for row in result.splits)
    lines.append("")
    lines.extend(fix_notes(result))
    lines.append(
        f"{seconds:.1f} s in all, {total / seconds / 1e6:,.0f} MB/s. "
        "(write s: summed over workers; MB/s: a worker)"
    )
    return "\n".join(lines)


def fix_notes(result: RunResult) -> list[str]:
    """Names the images that were converted, and where that differs from what is known of ILSVRC-2012."""
    fixes = {
        fix.file_name.rpartition("/")[2]: fix.kind for row in result.splits for fix in row.fixes
    }
    notes = []
    for kind, known in (("CMYK", labels.CMYK_IMAGES), ("PNG", labels.PNG_IMAGES)):
        fixed = {name for name, fixed_kind in fixes.items() if fixed_kind == kind}
        if fixed:
            notes.append(f"Converted from {kind} to RGB: {' '.join(sorted(fixed))}")
        if surprising := sorted(fixed - known):
            notes.append(f"Not known to be {kind} in ILSVRC-2012: {' '.join(surprising)}")
        has_train = any(row.split == "train" for row in result.splits)
        if has_train and (absent := sorted(known - fixed)):
            notes.append(f"Known to be {kind} in ILSVRC-2012, but not found so: {' '.join(absent)}")
    return notes
