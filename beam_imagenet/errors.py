"""Errors that a person is meant to read: what happened, where, and what to do, in one paragraph.

Knows nothing of Beam. An engine hands a worker's exception to the launcher as the text of a
traceback, in a shape of its own; `find_message` gets the paragraph back out of any of them.
"""

from __future__ import annotations

import re


class ImageNetError(Exception):
    """The job cannot give a right dataset; the message is one paragraph for the person who ran it."""

    def __init__(self, message: str) -> None:
        """Keeps the message on one line, so that it survives as the last line of a traceback."""
        super().__init__(" ".join(message.split()))


class UsageError(ImageNetError):
    """The call was wrong: nothing was started."""


class ArchiveError(ImageNetError):
    """An archive is damaged, or is not what it is taken for."""


class ImageError(ImageNetError):
    """A member is no image that can be carried over."""


class ReconcileError(ImageNetError):
    """What was planned or written does not agree with the archives: the engine lost or repeated work."""


class StorageError(ImageNetError):
    """The store could not read or write as asked."""


_LAST_LINE = re.compile(
    r"beam_imagenet\.errors\.(?:ImageNet|Usage|Archive|Image|Reconcile|Storage)Error: (?P<message>.+)"
)
_BEAM_SUFFIX = re.compile(r"(?:\\n|\s)*\[while running '.*$")


def find_message(traceback_text: str) -> str | None:
    """The paragraph of the `ImageNetError` that a traceback's text ends with, or None without one.

    An error with its cause is printed cause first, so the last one is the one with all the context.
    """
    found = _LAST_LINE.findall(traceback_text)
    if not found:
        return None
    return _BEAM_SUFFIX.sub("", found[-1].split("\\n")[0]).strip()
