"""Beam's local runner with forked worker processes: what DirectRunner means here, on every machine.

Beam's own DirectRunner first tries to download another runner (Prism), which can hang behind a firewall,
and starts its worker processes by importing Beam anew in each, about a second of every core. Here the
workers are forked from the launcher, which has imported everything already; the rest is Beam's.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms import environments
from google.protobuf import json_format, text_format

from beam_imagenet.errors import ImageNetError, UsageError
from beam_imagenet.options import ImageNetOptions

_URN = "beam_imagenet:env:forked_python:v1"
_LOCAL_RUNNERS = frozenset({"directrunner", "direct", "fnapirunner"})
_PATIENCE_SECONDS = 1.0
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_FORK = multiprocessing.get_context("fork")


def runner_from_options(options: PipelineOptions) -> PipelineRunner:
    """The runner that was asked for; without one, or for DirectRunner, the local one.

    Forks its workers at once, so call it before any thread or gRPC channel is there.

    Raises:
        UsageError: There is no such runner.
    """
    name = options.view_as(StandardOptions).runner or "DirectRunner"
    if name.lower() not in _LOCAL_RUNNERS:
        try:
            return create_runner(name)
        except (ValueError, ImportError, AttributeError) as error:
            raise UsageError(f"--runner={name}: {error}") from error
    _return_freed_memory()
    direct = options.view_as(DirectOptions)
    environment = None
    if direct.direct_running_mode == "multi_processing":
        direct.direct_num_workers = direct.direct_num_workers or os.cpu_count() or 1
        quiet = not options.view_as(ImageNetOptions).verbose
        _IDLE.extend(_Worker(quiet=quiet) for _ in range(direct.direct_num_workers))
        # FnApiRunner would start workers of its own in this mode; in any other it uses what it is given.
        direct.direct_running_mode = "in_memory"
        environment = ForkedEnvironment.default()
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    return fn_runner.FnApiRunner(
        default_environment=environment,
        provision_info=fn_runner.ExtendedProvisionInfo(
            beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
        ),
    )


def _return_freed_memory() -> None:
    """Has glibc give large buffers back to the system when they are freed.

    Left alone it keeps those of up to 32 MB, in an arena for each of gRPC's threads: at full
    cardinality some 450 MB in the launcher instead of 300. Other C libraries have no such option.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 256 << 10)


def end_workers() -> None:
    """Kills the workers that are left, and waits for their end."""
    _ENDING.set()
    workers = multiprocessing.active_children()
    for process in workers:
        process.kill()
    for process in workers:
        process.join()


class _Worker:
    """A forked process that waits to be told which runner it works for."""

    def __init__(self, *, quiet: bool) -> None:
        receiver, self._sender = _FORK.Pipe(duplex=False)
        self.process = _FORK.Process(target=_work, args=(receiver, quiet, os.getpid()), daemon=True)
        self.process.start()
        receiver.close()

    def start(self, environment: dict[str, str]) -> None:
        """Sets it to work; `environment` is what Beam's SDK harness reads from the environment."""
        try:
            self._sender.send(environment)
        except BrokenPipeError as error:
            raise self.death() from error

    def death(self) -> ImageNetError:
        """What a person is told when the process ended before its work did."""
        self.process.join()
        return ImageNetError(
            f"Worker process {self.process.pid} ended with exit code {self.process.exitcode} in the "
            "middle of its work. A code of -9 often means that memory ran out: use fewer workers "
            "(--direct_num_workers). Then run the same command again."
        )


_IDLE: list[_Worker] = []
_RUNNING: list[ForkedWorkerHandler] = []
_ENDING = threading.Event()


def _abort_on_error(response: Any) -> None:
    if response.error:
        for handler in list(_RUNNING):
            for future in list(handler.control_conn._futures_by_id.values()):
                # Not abort(): that leaves those waiting who wait for an answer, be it an error.
                worker_handlers.ControlFuture.set(future, response)


def _work(receiver: multiprocessing.connection.Connection, quiet: bool, launcher: int) -> None:
    if quiet:
        # Beam prints each traceback here, and hands it to the launcher as well.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process
    for number in (signal.SIGINT, signal.SIGTERM):  # the launcher's to handle
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)
    os.environ.update(receiver.recv())
    sdk_worker_main.main([])


@environments.Environment.register_urn(_URN, bytes)
class ForkedEnvironment(environments.Environment):
    """The environment of stages that run in forked workers."""

    def to_runner_api_parameter(self, context: object) -> tuple[str, bytes]:
        """The URN that `ForkedWorkerHandler` is registered under."""
        return _URN, b""

    @staticmethod
    def from_runner_api_parameter(
        payload: bytes, capabilities: Any, artifacts: Any, context: object
    ) -> ForkedEnvironment:
        """The environment of a pipeline that was read back from its proto."""
        return ForkedEnvironment(capabilities=capabilities, artifacts=artifacts)

    @classmethod
    def default(cls) -> ForkedEnvironment:
        """The environment of this Python SDK."""
        return cls(capabilities=environments.python_sdk_capabilities(), artifacts=())


@worker_handlers.WorkerHandler.register_environment(_URN, bytes)
class ForkedWorkerHandler(worker_handlers.GrpcWorkerHandler):
    """Connects FnApiRunner with one of the forked workers."""

    def __init__(self, payload: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._worker = _IDLE.pop()
        self._stopping = False

    def start_worker(self) -> None:
        """Tells the worker where its runner is, and watches it from then on."""
        provision = self.provision_info.provision_info
        self._worker.start(
            {
                "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(
                    self.control_api_service_descriptor()
                ),
                "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(
                    self.logging_api_service_descriptor()
                ),
                "PIPELINE_OPTIONS": json_format.MessageToJson(provision.pipeline_options),
                "WORKER_ID": self.worker_id,
            }
        )
        self._fail_at_once()
        threading.Thread(target=self._watch, name="watch_worker", daemon=True).start()

    def _fail_at_once(self) -> None:
        """Has the first error of any worker end the job; FnApiRunner would wait for the others' work."""
        _RUNNING.append(self)
        connection = self.control_conn
        push = connection.push

        def push_and_listen(request: Any) -> Any:
            future = push(request)
            if future is not None:
                answer = future.set

                def listen(response: Any) -> None:
                    answer(response)
                    _abort_on_error(response)

                future.set = listen
            return future

        connection.push = push_and_listen

    def _watch(self) -> None:
        self._worker.process.join()
        if not self._stopping and not _ENDING.is_set():
            # FnApiRunner cannot be told, and would wait for the worker's answers for ever.
            print(f"beam_imagenet: {self._worker.death()}", file=sys.stderr, flush=True)
            end_workers()
            os._exit(1)

    def close(self) -> None:
        """Ends the worker: an idle one at once, and a busy one soon, since its job has failed."""
        self._stopping = True
        if self in _RUNNING:
            _RUNNING.remove(self)
        patience = threading.Timer(_PATIENCE_SECONDS, self._worker.process.kill)
        patience.start()
        super().close()
        patience.cancel()

    def stop_worker(self) -> None:
        """Waits until the worker has ended."""
        self._worker.process.join()
