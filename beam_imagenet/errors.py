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
    """The call was wrong: nothing was written."""


class ArchiveError(ImageNetError):
    """An archive is damaged, or is not what it is taken for."""


class ImageError(ImageNetError):
    """A member is no image that can be carried over."""


class ReconcileError(ImageNetError):
    """What was planned or written does not agree with the archives: the engine lost or repeated work."""


class ConflictError(ImageNetError):
    """Another run changed the target; what it published stays."""


class StorageError(ImageNetError):
    """The store could not read or write as asked."""


_MESSAGE = re.compile(
    r"beam_imagenet\.errors\.(?:ImageNet|Usage|Archive|Image|Reconcile|Conflict|Storage)Error: (.+)"
)
_BEAM_SUFFIX = re.compile(r"\s*\[while running '.*$")


def quoted(name: bytes | str) -> str:
    """A name from an archive for a message: quoted, and whatever cannot be printed replaced."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return "'" + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text) + "'"


def find_message(traceback_text: str) -> str | None:
    r"""The paragraph of the `ImageNetError` that a traceback's text ends with, or None without one.

    An error with its cause is printed cause first, so the last one is the one with all the context.
    Some engines put a traceback on one line, with `\n` for its line feeds.
    """
    lines = traceback_text.replace("\\n", "\n").splitlines()
    found = [match[1] for line in lines if (match := _MESSAGE.search(line))]
    return without_suffix(found[-1]) if found else None


def without_suffix(message: str) -> str:
    """A message without what Beam appends to it: the stage that it came from."""
    return _BEAM_SUFFIX.sub("", message).strip()
