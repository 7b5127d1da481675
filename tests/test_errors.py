"""The paragraph for a person, out of the text that an engine makes of a traceback."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_imagenet import errors

MESSAGE = (
    "/a b/train.tar: member 'n01440764_1.JPEG' at byte 1,024 has no end (it's cut). Fetch it again."
)
KINDS = [
    errors.ImageNetError,
    errors.UsageError,
    errors.ArchiveError,
    errors.ImageError,
    errors.ReconcileError,
    errors.ConflictError,
    errors.StorageError,
]


def text_of(fail: Callable[[], object]) -> str:
    """The traceback of what `fail` raises, as Python writes it."""
    try:
        fail()
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it did not fail")


def raise_plainly() -> None:
    raise errors.ArchiveError(MESSAGE)


def raise_from_another() -> None:
    try:
        int("no number")
    except ValueError as error:
        raise errors.ArchiveError(MESSAGE) from error


def raise_from_one_of_ours() -> None:
    try:
        raise errors.ImageError("it is no image")
    except errors.ImageError as error:
        raise errors.ArchiveError(MESSAGE) from error


def fail_while_handling() -> None:
    try:
        raise_plainly()
    except errors.ArchiveError as error:
        raise RuntimeError("the engine failed as well") from error


def run_in_beam() -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create([1]) | "Walk 'em" >> beam.Map(lambda _: raise_from_another())


FAILURES = [raise_plainly, raise_from_another, fail_while_handling, run_in_beam]


@pytest.mark.parametrize("fail", [*FAILURES, raise_from_one_of_ours])
def test_the_message_comes_out_of_a_traceback(fail: Callable[[], object]) -> None:
    assert errors.find_message(text_of(fail)) == MESSAGE


def test_beam_adds_a_suffix_to_be_removed() -> None:
    assert "Fetch it again. [while running 'Walk 'em']" in text_of(run_in_beam)


@pytest.mark.parametrize("fail", FAILURES)
def test_the_message_comes_out_of_a_traceback_on_one_line(fail: Callable[[], object]) -> None:
    """Engines put a worker's traceback into a message of their own, escaped."""
    status = RuntimeError(f"Pipeline failed: {json.dumps({'error': text_of(fail)})}")
    assert "\n" not in str(status)
    assert errors.find_message(str(status)) == MESSAGE


@pytest.mark.parametrize("kind", KINDS)
def test_the_message_of_every_kind_of_error_is_found(kind: type[errors.ImageNetError]) -> None:
    text = "".join(traceback.format_exception(kind(MESSAGE)))
    assert errors.find_message(text) == MESSAGE
    assert issubclass(kind, errors.ImageNetError)


def test_every_error_of_the_package_is_covered() -> None:
    assert set(KINDS) == {errors.ImageNetError, *errors.ImageNetError.__subclasses__()}


@pytest.mark.parametrize(
    "text", ["", "ValueError: no number", "MyArchiveError: mine", text_of(lambda: 1 / 0)]
)
def test_a_traceback_without_our_errors_has_no_message(text: str) -> None:
    assert errors.find_message(text) is None


def test_a_message_is_one_line() -> None:
    assert str(errors.UsageError("two\n   lines,\tspaced")) == "two lines, spaced"


def test_a_chain_on_one_line_gives_the_last_error() -> None:
    assert errors.find_message(json.dumps(text_of(raise_from_one_of_ours))) == MESSAGE


def test_a_name_with_a_line_feed_stays_in_its_message() -> None:
    message = (
        f"a.tar: member {errors.quoted(b'a' + bytes([10]) + b'b.JPEG')} has no name. Remove it."
    )
    assert message.count("'") == 2
    text = "".join(traceback.format_exception(errors.ArchiveError(message)))
    assert errors.find_message(text) == message
