"""What a split's bytes follow from, as one short text: the same fingerprint, the same shards.

It is known before any work starts, so it names the folder of what a run has done so far, and tells
whether a dataset that is there is the one that a run would make. Pure.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

import PIL
import simplejpeg

from beam_imagenet.model import Checks, Job, Source

_FORMAT = 1
"""Raised when this package changes the bytes that it writes from the same archives."""


def with_fingerprints(job: Job) -> Job:
    """The job with the fingerprint of each of its sources."""
    sources = tuple(
        dataclasses.replace(source, fingerprint=_fingerprint(job, source)) for source in job.sources
    )
    return dataclasses.replace(job, sources=sources)


def _fingerprint(job: Job, source: Source) -> str:
    facts = {
        "format": _FORMAT,
        "split": source.split,
        "archive": [os.path.realpath(source.archive), source.size, source.modified],
        "num_shards": source.num_shards,
        "keep_member_path": job.keep_member_path,
        "left_out": _left_out(job.checks),
        # They decode and encode the images that get a colour fix.
        "codecs": [PIL.__version__, simplejpeg.__version__],
    }
    text = json.dumps(facts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _left_out(checks: Checks) -> str:
    """The rule by which images are left out, in as far as options change it.

    "fail" leaves nothing out and "quarantine" what "fail" stops at, so that whatever a failed run
    has written can be kept when the same archives are converted with "quarantine".
    """
    if checks.keeps_bad:  # but a bad image gets no colour fix
        return f"nothing, suspect by {checks.level} is bad" if checks.strict else "nothing"
    if checks.level == "none":
        return "what cannot be converted"
    return f"suspect by {checks.level}" if checks.strict else "bad"
