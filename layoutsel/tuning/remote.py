"""Timing on servers of TVM's RPC tracker; schedules of lost servers are tried again."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from layoutsel.device.outcome import Failure, FailureKind
from layoutsel.device.worker import Reply, Worker
from layoutsel.tuning.devices import TRIAL_LIMIT_S, Request, Times
from tvm_passes.errors import LayoutselError

SESSION_LIMIT_S = 30
"""Time limit of one schedule on a server, seconds."""
TRIES = 3
"""Number of lost sessions after which the schedule counts as their cause."""
PATIENCE_S = 60.0
"""Longest wait without any server, seconds."""
_LOOK_EVERY_S = 2.0
"""Time between two checks for servers, seconds."""
_ANSWER_S = 5.0
"""Longest wait for the tracker's answer, seconds."""


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """Address of an RPC tracker and key of the servers to use."""

    host: str
    """Host name or address."""
    port: int
    """Port number."""
    key: str
    """Key under which the servers are registered."""

    @classmethod
    def parse(cls, address: str, key: str) -> Tracker:
        """Parse ``HOST:PORT``.

        Raises
        ------
        LayoutselError
            If `address` has another form.
        """
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise LayoutselError(
                f"--tracker {address!r}: expected HOST:PORT, such as localhost:9190"
            )
        return cls(host=host.strip("[]"), port=int(port), key=key)

    def servers(self) -> int:
        """Number of the key's servers.

        Raises
        ------
        LayoutselError
            If the tracker does not answer.
        """
        from tvm.rpc import TrackerSession

        try:
            # Check the port first, as TVM itself would try to connect for a minute.
            socket.create_connection((self.host, self.port), timeout=_ANSWER_S).close()
            summary = TrackerSession((self.host, self.port)).summary()
        except Exception as error:  # sockets and TVM fail in many ways
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise LayoutselError(
                f"no RPC tracker answers at {self.host}:{self.port}: {reason[-1]}; start one with "
                f"'python -m tvm.exec.rpc_tracker'"
            ) from error
        return sum(server["key"] == f"server:{self.key}" for server in summary["server_info"])

    def none_left(self) -> LayoutselError:
        """Make the error for a tracker without servers."""
        return LayoutselError(
            f"no server of key {self.key!r} at the tracker {self.host}:{self.port}: start one with "
            f"'python -m tvm.exec.rpc_server --tracker={self.host}:{self.port} --key={self.key}'; "
            f"records so far are kept"
        )


class RemoteDevice:
    """Servers of one key, which time as many schedules at once as there are servers.

    Parameters
    ----------
    tracker
        Address of the tracker and key of the servers.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._workers: list[Worker] = []

    def __enter__(self) -> RemoteDevice:
        if not self._tracker.servers():
            raise self._tracker.none_left()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def measure(self, requests: Sequence[Request]) -> Iterator[tuple[int, Times | Failure]]:
        """Yield index and outcome of each request, in order of completion.

        Raises
        ------
        LayoutselError
            If no server was available for :data:`PATIENCE_S`.
        """
        servers = max(1, min(self._wait_for_servers(), len(requests)))
        while len(self._workers) < servers:
            self._workers.append(_worker())
        batch = _Batch(self._tracker, requests)
        threads = [
            threading.Thread(target=batch.run, args=(worker,), daemon=True)
            for worker in self._workers[:servers]
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._outcomes(batch, len(requests))
        finally:
            batch.end()
            if any(thread.is_alive() for thread in threads) and not batch.is_complete:
                self.__exit__(None, None, None)
            for thread in threads:
                thread.join(timeout=5)

    def _outcomes(self, batch: _Batch, count: int) -> Iterator[tuple[int, Times | Failure]]:
        lonely_since = None
        for _ in range(count):
            while True:
                try:
                    index, answer = batch.answers.get(timeout=_LOOK_EVERY_S)
                except queue.Empty:
                    if self._tracker.servers():
                        lonely_since = None
                    elif lonely_since is None:
                        lonely_since = time.monotonic()
                    elif time.monotonic() - lonely_since > PATIENCE_S:
                        raise self._tracker.none_left() from None
                    continue
                if isinstance(answer, Exception):
                    raise answer
                yield index, answer
                break

    def _wait_for_servers(self) -> int:
        end = time.monotonic() + PATIENCE_S
        while not (count := self._tracker.servers()):
            if time.monotonic() > end:
                raise self._tracker.none_left()
            time.sleep(_LOOK_EVERY_S)
        return count


class _Batch:
    """Requests that several threads answer, each with its own worker."""

    def __init__(self, tracker: Tracker, requests: Sequence[Request]) -> None:
        self._tracker = {"host": tracker.host, "port": tracker.port, "key": tracker.key}
        self._waiting: queue.Queue[tuple[int, Request, int]] = queue.Queue()
        for index, request in enumerate(requests):
            self._waiting.put((index, request, 0))
        self._open = len(requests)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.answers: queue.Queue[tuple[int, Times | Failure | Exception]] = queue.Queue()

    @property
    def is_complete(self) -> bool:
        """True if every request has an answer."""
        return self._open == 0

    def end(self) -> None:
        """Start no further requests."""
        self._ended.set()

    def run(self, worker: Worker) -> None:
        """Main function of a thread."""
        try:
            self.serve(worker)
        except Exception as error:
            # The main thread raises it, unless it ended the worker itself.
            if not self._ended.is_set():
                self.answers.put((-1, error))

    def serve(self, worker: Worker) -> None:
        """Process requests until all are answered."""
        while not self._ended.is_set() and not self.is_complete:
            try:
                index, request, tries = self._waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            outcome = self._try(worker, request)
            if isinstance(outcome, _Lost):
                tries += outcome.counts
                if tries < TRIES:
                    self._waiting.put((index, request, tries))
                    continue
                outcome = Failure(kind=FailureKind.TIMEOUT, reason=outcome.reason)
            with self._lock:
                self._open -= 1
            self.answers.put((index, outcome))

    def _try(self, worker: Worker, request: Request) -> Times | Failure | _Lost:
        answer = worker.call({**request, "tracker": self._tracker})
        if not isinstance(answer, Reply):
            is_hung = answer.kind is FailureKind.TIMEOUT
            return _Lost(answer.reason, counts=1) if is_hung else answer
        phase, value = answer.value
        if phase == "timed":
            return tuple(value)
        if phase == "built":
            return Failure(kind=FailureKind.BUILD, reason=value)
        if phase == "sent":
            time.sleep(_LOOK_EVERY_S / 4)
        return _Lost(value, counts=int(phase == "run"))


@dataclass(frozen=True)
class _Lost:
    """A session that ended early."""

    reason: str
    """Reason of the end."""
    counts: bool | int
    """True if the schedule was running and may be the cause."""


def _worker() -> Worker:
    return Worker("layoutsel.tuning.remote:measure_there", time_limit_s=2 * TRIAL_LIMIT_S)


_NUMBERS = itertools.count()
"""Numbers for unique file names on the servers."""


def measure_there(request: Mapping[str, Any]) -> tuple[str, Any]:
    """Build a schedule here and time it on a server.

    Returns
    -------
    tuple
        Last phase (``built``, ``sent``, ``run`` or ``timed``), and the seconds or the error.
    """
    from tvm.s_tir.meta_schedule.runner import EvaluatorConfig, RPCConfig
    from tvm.s_tir.meta_schedule.runner import rpc_runner as tvm_runner
    from tvm.target import Target

    from layoutsel.tuning.measure import REPEAT_MS, REPEATS, build
    from tvm_passes.devices import DeviceId

    tracker = request["tracker"]
    config = RPCConfig(
        tracker_host=tracker["host"],
        tracker_port=tracker["port"],
        tracker_key=tracker["key"],
        session_timeout_sec=SESSION_LIMIT_S,
    )
    timing = EvaluatorConfig(number=1, repeat=REPEATS, min_repeat_ms=REPEAT_MS)
    phase = "built"
    try:
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"schedule{next(_NUMBERS)}.tar"
            build(request).export_library(str(file))
            phase = "sent"
            session = tvm_runner.default_create_session(config)
            module = tvm_runner.default_upload_module(session, str(file), file.name)
            phase = "run"
            kind = Target(request["target"]).kind.name
            device = session.device(DeviceId.of_target(kind).kind, 0)
            arguments = tvm_runner.default_alloc_argument(
                session, device, tuple(request["arguments"]), 1
            )
            return "timed", tvm_runner.default_run_evaluator(
                session, module, device, timing, arguments
            )
    except Exception as error:  # any failure of a schedule or a server is a result
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return phase, lines[-1]
