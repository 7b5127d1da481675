"""What was done, as data (`result.json`) and as the table that a person sees.

Pure: knows nothing of Beam or of files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

from beam_imagenet import labels
from beam_imagenet.model import SPLITS, Checks, ColorFix, Finding, Job, ShardResult, SplitPlan

_LISTED = 10  # findings that a person sees of each kind; result.json has all


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One row of the table: a split of the dataset, and the run that completed it.

    Attributes:
        split: Name of the split.
        fingerprint: What its bytes follow from.
        images: Records.
        num_bytes: Bytes of their serialised examples.
        shards: Files.
        classes: Distinct labels; 0 in test.
        fixes: Images that were converted, by name.
        level: The `Checks.level` that its images have passed.
        bad: Images that are none, by name.
        bad_kept: Whether those are records all the same; otherwise they were left out.
        suspect: Images that are odd, and records all the same.
        suspicions: What is odd about the archive.
        worker_seconds: Time that workers spent on the shards of this run, summed.
        kept_shards: Shards that were there already.
        kept_bytes: The part of `num_bytes` that is in them.
        finished: When the last shard was there, in seconds since the epoch.
    """

    split: str
    fingerprint: str
    images: int
    num_bytes: int
    shards: int
    classes: int
    fixes: tuple[ColorFix, ...]
    level: str
    bad: tuple[Finding, ...]
    bad_kept: bool
    suspect: tuple[Finding, ...]
    suspicions: tuple[str, ...]
    worker_seconds: float
    kept_shards: int
    kept_bytes: int
    finished: float

    def serves(self, checks: Checks) -> bool:
        """Whether a split of the same fingerprint is what a job with these checks would make."""
        allowed = {"fail": 0, "quarantine": checks.max_bad_images}
        return checks.covered_by(self.level) and len(self.bad) <= allowed.get(
            checks.on_bad_image, len(self.bad)
        )


def summarize(
    job: Job, plans: Sequence[SplitPlan], results: Sequence[ShardResult], *, finished: float
) -> list[SplitSummary]:
    """Adds up what was written."""
    fingerprints = {source.split: source.fingerprint for source in job.sources}
    rows = []
    for plan in sorted(plans, key=lambda plan: SPLITS.index(plan.split)):
        written = [result for result in results if result.split == plan.split]
        kept = [result for result in written if result.kept]
        rows.append(
            SplitSummary(
                split=plan.split,
                fingerprint=fingerprints[plan.split],
                images=sum(result.num_examples for result in written),
                num_bytes=sum(result.num_bytes for result in written),
                shards=len(written),
                classes=plan.num_classes,
                fixes=tuple(
                    sorted(
                        (fix for result in written for fix in result.fixes),
                        key=lambda fix: fix.file_name,
                    )
                ),
                level=job.checks.level,
                bad=_sorted(finding for result in written for finding in result.bad),
                bad_kept=job.checks.keeps_bad,
                suspect=_sorted(finding for result in written for finding in result.suspect),
                suspicions=plan.suspicions,
                worker_seconds=sum(result.seconds for result in written if not result.kept),
                kept_shards=len(kept),
                kept_bytes=sum(result.num_bytes for result in kept),
                finished=finished,
            )
        )
    return rows


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.file_name))


def to_json(version: str, rows: Sequence[SplitSummary]) -> bytes:
    """The content of `result.json`: all splits of the dataset."""
    content = {"version": version, "splits": [dataclasses.asdict(row) for row in rows]}
    return (json.dumps(content, indent=2) + "\n").encode("utf-8")


def table(rows: Sequence[SplitSummary], *, seconds: float) -> str:
    """The table and the notes that end a run.

    Args:
        rows: The splits that the run wrote.
        seconds: Wall time of the run.
    """
    head = ("split", "images", "bytes", "shards", "classes", "fixes", "bad", "write s", "MB/s")
    cells = [head, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in cells
    ]
    written = sum(row.num_bytes - row.kept_bytes for row in rows)
    lines += [
        "",
        *count_notes(rows),
        *finding_notes(rows),
        *fix_notes(rows),
        f"{seconds:.1f} s in all, {written / seconds / 1e6:,.0f} MB/s. "
        "(write s: summed over workers; MB/s: a worker)",
    ]
    return "\n".join(lines)


def _cells(row: SplitSummary) -> tuple[str, ...]:
    speed = (row.num_bytes - row.kept_bytes) / max(row.worker_seconds, 1e-9) / 1e6
    return (
        row.split,
        f"{row.images:,}",
        f"{row.num_bytes:,}",
        f"{row.shards:,}",
        f"{row.classes:,}" if row.classes else "-",
        f"{len(row.fixes):,}",
        f"{len(row.bad):,}",
        f"{row.worker_seconds:.1f}",
        f"{speed:,.0f}",
    )


def count_notes(rows: Sequence[SplitSummary]) -> list[str]:
    """What is missing of ILSVRC-2012, and what was there before."""
    notes = [
        f"{row.split}: {row.images:,} of ILSVRC-2012's {labels.IMAGES[row.split]:,} images"
        for row in rows
        if row.images != labels.IMAGES[row.split]
    ]
    notes += [
        f"{row.split}: {row.kept_shards:,} of {row.shards:,} shards kept"
        for row in rows
        if row.kept_shards
    ]
    return notes


def finding_notes(rows: Sequence[SplitSummary]) -> list[str]:
    """Names what the checks found."""
    notes = []
    for row in rows:
        notes += [f"{row.split}: {suspicion}" for suspicion in row.suspicions]
        kinds = (
            ("bad, kept" if row.bad_kept else "bad, left out", row.bad),
            ("suspect", row.suspect),
        )
        for kind, findings in kinds:
            notes += [
                f"{row.split}, {kind}: {finding.file_name}: {finding.reason}"
                for finding in findings[:_LISTED]
            ]
            if len(findings) > _LISTED:
                more = len(findings) - _LISTED
                notes.append(f"{row.split}, {kind}: {more:,} more, all in result.json")
    return notes


def fix_notes(rows: Sequence[SplitSummary]) -> list[str]:
    """Names the images that were converted, and where that differs from what is known of ILSVRC-2012."""
    fixes = {fix.file_name.rpartition("/")[2]: fix.kind for row in rows for fix in row.fixes}
    notes = []
    for kind, known in (("CMYK", labels.CMYK_IMAGES), ("PNG", labels.PNG_IMAGES)):
        fixed = {name for name, fixed_kind in fixes.items() if fixed_kind == kind}
        if fixed:
            notes.append(f"Converted from {kind} to RGB: {' '.join(sorted(fixed))}")
        if surprising := sorted(fixed - known):
            notes.append(f"Not known to be {kind} in ILSVRC-2012: {' '.join(surprising)}")
        has_train = any(row.split == "train" for row in rows)
        if has_train and (absent := sorted(known - fixed)):
            notes.append(f"Known to be {kind} in ILSVRC-2012, but not found so: {' '.join(absent)}")
    return notes
