"""The command line: `python -m beam_imagenet`, or `beam-imagenet`.

Exit status: 0 the dataset is there, 1 the job failed, 2 the call was wrong.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from beam_imagenet import errors, summary

_NO_PROXY = "no_grpc_proxy"  # gRPC reads it in small letters only

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
COMMANDS = {"sample": "sample", "inspect": "inspect_command", "clean": "cleaning"}
"""The modules of the commands other than the conversion, none of which needs Beam."""


def main(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit status.
    """
    try:
        if arguments and arguments[0] in COMMANDS:
            command = importlib.import_module(f"beam_imagenet.{COMMANDS[arguments[0]]}")
            status: int = command.main(arguments[1:])
            return status
        return _convert(arguments)
    except errors.UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        return _fail("Interrupted. Nothing was completed.", EXIT_FAILED)
    except BrokenPipeError:  # whoever read the output has left
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process
        return EXIT_FAILED
    except Exception as error:  # the one place where an engine's failure becomes words
        if logging.getLogger().isEnabledFor(logging.INFO):
            traceback.print_exc()
        return _fail(_explain(error), EXIT_FAILED)


def _convert(arguments: Sequence[str]) -> int:
    started = time.monotonic()
    _quieten()
    # Imported here, so that other commands start without Beam and gRPC finds its settings. What is
    # imported stays: collecting garbage among it costs a tenth of a second here, and copies of its pages
    # in each forked worker.
    gc.disable()
    import apache_beam as beam

    from beam_imagenet import (
        commit,
        inspection,
        layout,
        local_runner,
        options,
        pipeline,
        space,
        storage,
        target,
    )

    gc.freeze()
    gc.enable()

    if "--help" in arguments or "-h" in arguments:
        _say(options.help_text())
        return EXIT_DONE
    if "--help_beam" in arguments:
        _say(options.full_parser().format_help())
        return EXIT_DONE
    beam_options = options.parse(arguments)
    ours = beam_options.view_as(options.ImageNetOptions)
    if ours.verbose:
        _speak()
    asked = options.job_from_options(beam_options)
    dataset = Path(asked.dataset_dir)
    found = target.examine(asked, overwrite=ours.overwrite, fresh=ours.fresh)
    if not found.job.sources:
        with contextlib.suppress(errors.StorageError):  # it may be read-only by now, and is whole
            commit.write_result(dataset, version=asked.version)
            storage.sweep(layout.scratch(dataset))
        _say(
            f"{dataset} is complete, and made from these archives with these options: nothing to do."
        )
        return EXIT_DONE
    inspection.require_whole(found.job.sources)
    space.require_room(found.job.sources, dataset, already=found.bytes_there)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = local_runner.runner_from_options(beam_options)
    try:
        with target.occupied(found, fresh=ours.fresh):
            _say(options.describe(found))
            try:
                with beam.Pipeline(runner=runner, options=beam_options) as graph:
                    pipeline.build(graph, found.job)
            finally:
                local_runner.end_workers()
    except KeyboardInterrupt:
        done = target.summaries(found.job) is not None
        return _fail(_interrupted(done=done, fresh=ours.fresh), EXIT_FAILED)
    rows = target.summaries(found.job)
    if rows is None:
        raise errors.ReconcileError(
            "The runner ended without an error, but never ran the job's last step, so nothing was published. "
            "Run the same command again, and report it if it happens again."
        )
    _say(f"\n{summary.table(rows, seconds=time.monotonic() - started)}")
    return EXIT_DONE


def _interrupted(*, done: bool, fresh: bool) -> str:
    if done:
        return "Interrupted; the dataset is complete."
    command = "the same command" + (" without --fresh" if fresh else "")
    return (
        "Interrupted; no dataset was written. Shards that are complete are kept, and "
        f"{command} goes on with them."
    )


def _say(text: str) -> None:
    """Prints; a reader who is gone is no reason to stop the work."""
    with contextlib.suppress(OSError, ValueError):
        print(text.rstrip("\n"), flush=True)


def _explain(error: Exception) -> str:
    """What a person is told of an error that a worker or an engine raised."""
    if isinstance(error, errors.ImageNetError):
        return errors.without_suffix(str(error))
    text = "".join(traceback.format_exception(error))
    if (message := errors.find_message(text)) is not None:
        return message
    last_line = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return f"The job failed: {last_line[0]} (--verbose shows where.)"


def _fail(message: str, status: int) -> int:
    print(f"beam_imagenet: {message}", file=sys.stderr)
    return status


def _quieten() -> None:
    """Leaves Beam's, absl's and gRPC's logs to --verbose: what a person has to know, we print."""
    logging.basicConfig(level=logging.CRITICAL)
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # gRPC would ask a proxy for the way from this process to its workers, and wait for ever.
    direct = os.environ.get(_NO_PROXY) or os.environ.get("no_proxy", "")
    os.environ[_NO_PROXY] = ",".join(filter(None, (direct, "localhost", "127.0.0.1")))
    threading.excepthook = _ignore_broken_streams


def _speak() -> None:
    """Undoes `_quieten`."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.INFO)
    threading.excepthook = threading.__excepthook__


def _ignore_broken_streams(ended: threading.ExceptHookArgs) -> None:
    """A worker that dies breaks gRPC streams in threads of Beam's; what it died of is told elsewhere."""
    if not ended.exc_type.__module__.startswith("grpc"):
        threading.__excepthook__(ended)


def entry_point() -> None:
    """The console script."""
    status = main(sys.argv[1:])
    if set(sys.argv[1:2]) & set(COMMANDS):
        sys.exit(status)
    # What Beam leaves in threads may wait for ever after a failure, and taking down its modules costs
    # half a second after a success. Files are closed, and workers hold nothing that outlives the run.
    # An interrupt may come in the middle of the imports.
    runner = sys.modules.get("beam_imagenet.local_runner")
    getattr(runner, "end_workers", lambda: None)()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    entry_point()
