"""The command line: `python -m beam_imagenet`, or `beam-imagenet`.

Exit status: 0 the dataset is there, 1 the job failed, 2 the call was wrong.
"""

from __future__ import annotations

import gc
import logging
import os
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
    if arguments and arguments[0] == "sample":
        from beam_imagenet import sample

        return sample.main(arguments[1:])
    try:
        return _convert(arguments)
    except errors.UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        return _fail("Interrupted. No dataset was written.", EXIT_FAILED)
    except Exception as error:  # the one place where an engine's failure becomes words
        if "--verbose" in arguments:
            traceback.print_exc()
        return _fail(*_explain(error))


def _convert(arguments: Sequence[str]) -> int:
    started = time.monotonic()
    _quieten(verbose="--verbose" in arguments)
    # Imported here, so that `sample` starts without Beam and gRPC finds its settings. What is imported
    # stays: collecting garbage among it costs a tenth of a second here, and copies of its pages in
    # each forked worker.
    gc.disable()
    import apache_beam as beam

    from beam_imagenet import local_runner, options, pipeline, storage

    gc.freeze()
    gc.enable()
    if "--help" in arguments or "-h" in arguments:
        print(options.help_text(), end="")
        return EXIT_DONE
    if "--help_beam" in arguments:
        print(options.full_parser().format_help(), end="")
        return EXIT_DONE
    beam_options = options.parse(arguments)
    job = options.job_from_options(beam_options)
    runner = local_runner.runner_from_options(beam_options)
    print(options.describe(job), flush=True)
    storage.make_folder(Path(job.dataset_dir))
    with beam.Pipeline(runner=runner, options=beam_options) as graph:
        pipeline.build(graph, job)
    result = _read_result(Path(job.dataset_dir) / RESULT)
    if result is None or result.run_id != job.run_id:
        raise errors.ReconcileError(
            "The runner ended without an error, but never ran the job's last step, so there is no dataset. "
            "Run the same command again, and report it if it happens again."
        )
    print(f"\n{summary.table(result, seconds=time.monotonic() - started)}")
    return EXIT_DONE


def _read_result(path: Path) -> summary.RunResult | None:
    return summary.from_json(path.read_bytes()) if path.exists() else None


def _explain(error: Exception) -> tuple[str, int]:
    """What a person is told of an error that a worker or an engine raised, and the exit status."""
    if isinstance(error, errors.ImageNetError):
        return str(error), EXIT_FAILED
    text = "".join(traceback.format_exception(error))
    if (message := errors.find_message(text)) is not None:
        return message, EXIT_FAILED
    last_line = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return f"The job failed: {last_line[0]} (--verbose shows where.)", EXIT_FAILED


def _fail(message: str, status: int) -> int:
    print(f"beam_imagenet: {message}", file=sys.stderr)
    return status


def _quieten(*, verbose: bool) -> None:
    """Leaves Beam's, absl's and gRPC's logs to --verbose: what a person has to know, we print."""
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)
    if not verbose:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        logging.disable(logging.CRITICAL)
        threading.excepthook = _ignore_broken_streams


def _ignore_broken_streams(ended: threading.ExceptHookArgs) -> None:
    """A worker that dies breaks gRPC streams in threads of Beam's; what it died of is told elsewhere."""
    if not ended.exc_type.__module__.startswith("grpc"):
        threading.__excepthook__(ended)


def entry_point() -> None:
    """The console script."""
    status = main(sys.argv[1:])
    if status == EXIT_DONE:
        # All is written and no worker is left; taking down Beam's modules costs half a second.
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    entry_point()
