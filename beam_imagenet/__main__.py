"""The command line: `python -m beam_imagenet`, or `beam-imagenet`.

Exit status: 0 the dataset is there, 1 the job failed, 2 the call was wrong.
"""

from __future__ import annotations

import contextlib
import gc
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
from beam_imagenet.commit import RESULT

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit status.
    """
    try:
        if arguments and arguments[0] == "sample":
            from beam_imagenet import sample

            return sample.main(arguments[1:])
        return _convert(arguments)
    except errors.UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        return _fail("Interrupted. Nothing was completed.", EXIT_FAILED)
    except Exception as error:  # the one place where an engine's failure becomes words
        if logging.getLogger().isEnabledFor(logging.INFO):
            traceback.print_exc()
        return _fail(_explain(error), EXIT_FAILED)


def _convert(arguments: Sequence[str]) -> int:
    started = time.monotonic()
    _quieten()
    # Imported here, so that `sample` starts without Beam and gRPC finds its settings. What is imported
    # stays: collecting garbage among it costs a tenth of a second here, and copies of its pages in
    # each forked worker.
    gc.disable()
    import apache_beam as beam

    from beam_imagenet import local_runner, options, pipeline, storage

    gc.freeze()
    gc.enable()

    if "--help" in arguments or "-h" in arguments:
        _say(options.help_text())
        return EXIT_DONE
    if "--help_beam" in arguments:
        _say(options.full_parser().format_help())
        return EXIT_DONE
    beam_options = options.parse(arguments)
    if beam_options.view_as(options.ImageNetOptions).verbose:
        _speak()
    job = options.job_from_options(beam_options)
    dataset = Path(job.dataset_dir)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = local_runner.runner_from_options(beam_options)
    storage.make_folder(dataset)
    if not storage.lock_folder(dataset):
        raise errors.UsageError(f"Another run is writing to {dataset}. Wait until it has ended.")
    options.require_no_dataset(dataset)
    _say(options.describe(job))
    try:
        with beam.Pipeline(runner=runner, options=beam_options) as graph:
            pipeline.build(graph, job)
    except KeyboardInterrupt:
        done = _read_result(dataset / RESULT, run_id=job.run_id) is not None
        state = "the dataset is complete" if done else "no dataset was written"
        return _fail(f"Interrupted; {state}.", EXIT_FAILED)
    result = _read_result(dataset / RESULT, run_id=job.run_id)
    if result is None:
        raise errors.ReconcileError(
            "The runner ended without an error, but never ran the job's last step, so there is no dataset. "
            "Run the same command again, and report it if it happens again."
        )
    _say(f"\n{summary.table(result, seconds=time.monotonic() - started)}")
    return EXIT_DONE


def _say(text: str) -> None:
    """Prints; a reader who is gone is no reason to stop the work."""
    with contextlib.suppress(OSError, ValueError):
        print(text.rstrip("\n"), flush=True)


def _read_result(path: Path, *, run_id: str) -> summary.RunResult | None:
    """The result of this very run; None if its commit never ran."""
    if not path.exists():
        return None
    result = summary.from_json(path.read_bytes())
    return result if result.run_id == run_id else None


def _explain(error: Exception) -> str:
    """What a person is told of an error that a worker or an engine raised."""
    if isinstance(error, errors.ImageNetError):
        return str(error)
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
    if "sample" in sys.argv[1:2]:
        sys.exit(status)
    # What Beam leaves in threads may wait for ever after a failure, and taking down its modules costs
    # half a second after a success. Files are closed, and workers hold nothing that outlives the run.
    from beam_imagenet.local_runner import end_workers

    end_workers()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    entry_point()
