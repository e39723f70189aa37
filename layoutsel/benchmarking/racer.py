"""Control of an engine's process: requests for turns, with time limits."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from layoutsel.benchmarking import worker
from layoutsel.benchmarking.engine import EngineJob, Report
from layoutsel.benchmarking.engines import ENGINES
from layoutsel.core.memory_limits import limit_memory, most_bytes

PREPARE_LIMIT_S = 6 * 3600.0
"""Time limit of the preparation, seconds; tuning takes hours."""
LOAD_LIMIT_S = 900.0
"""Time limit of loading, seconds."""
TURN_LIMIT_S = 900.0
"""Time limit of a turn, seconds."""


class EngineError(Exception):
    """An engine's process reported an error, died or exceeded a time limit."""


@dataclass
class Racer:
    """A loaded engine with its times so far."""

    engine: str
    """Name of the engine."""
    process: Process
    """Process that runs the model."""
    loaded: dict[str, Any]
    """Answer of :func:`layoutsel.benchmarking.worker.serve` after loading."""
    times_ms: list[float] = field(default_factory=list)
    """Times of all runs, milliseconds."""
    runs_per_turn: int = 1
    """Number of runs in a turn."""
    spent_s: float = 0.0
    """Wall time of all turns, seconds."""
    error: str | None = None
    """Reason why the engine left the comparison; None if it did not."""

    def turn(self, runs: int) -> list[float]:
        """Run `runs` times; returns milliseconds, or sets `error` and returns an empty list."""
        start = time.perf_counter()
        try:
            return list(self.process.ask(runs, TURN_LIMIT_S))
        except EngineError as error:
            self.error = str(error)
            return []
        finally:
            self.spent_s += time.perf_counter() - start


class Process:
    """A spawned process that answers over a pipe; close it after use.

    Parameters
    ----------
    target
        Function of the process; its first argument is the process's end of the pipe.
    *arguments
        Further arguments of the function.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=target, args=(theirs, *arguments), daemon=True
        )
        self.process.start()
        if self.process.pid is not None:
            limit_memory(self.process.pid, most_bytes())
        theirs.close()

    def ask(self, question: Any, limit_s: float, report: Report | None = None) -> Any:
        """Send `question` and wait for the answer; raises as :meth:`answer` does."""
        try:
            self.connection.send(question)
        except OSError:
            raise self._died() from None
        return self.answer(limit_s, report)

    def answer(self, limit_s: float, report: Report | None = None) -> Any:
        """Wait for an answer and pass progress texts to `report`.

        Raises
        ------
        EngineError
            If the answer is an error, the process dies, or `limit_s` seconds pass.
        """
        deadline = time.monotonic() + limit_s
        while self._has_answer(deadline):
            try:
                kind, value = self.connection.recv()
            except (EOFError, OSError):
                raise self._died() from None
            if kind == "error":
                raise EngineError(value)
            if kind == "done":
                return value
            if report is not None:
                report(value)
        self.close()
        raise EngineError(f"TimeoutError: no answer within {limit_s:.0f} s")

    def _has_answer(self, deadline: float) -> bool:
        try:
            return self.connection.poll(max(0.0, deadline - time.monotonic()))
        except OSError:
            raise self._died() from None

    def _died(self) -> EngineError:
        self.process.join(5)
        return EngineError(f"the engine's process died with exit code {self.process.exitcode}")

    def close(self) -> None:
        """End the process if it still runs."""
        self.connection.close()
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def start(engine: str, job: EngineJob, data: Path, report: Report) -> Racer:
    """Prepare and load an engine.

    Parameters
    ----------
    engine
        Name of the engine.
    job
        The model to run.
    data
        File of the inputs and expected results; see :attr:`layoutsel.benchmarking.cases.Case.data`.
    report
        Called with short texts about the progress.

    Raises
    ------
    EngineError
        If the engine cannot run the model; the message is the reason.
    """
    if reason := ENGINES[engine].unavailable():
        raise EngineError(reason)
    if ENGINES[engine].prepare is not None:
        _prepare(engine, job, report)
    report(f"loading {engine}")
    serving = Process(worker.serve, engine, job, data)
    try:
        loaded = serving.answer(LOAD_LIMIT_S, report)
    except BaseException:
        serving.close()
        raise
    return Racer(engine, serving, loaded)


def _prepare(engine: str, job: EngineJob, report: Report) -> None:
    report(f"preparing {engine}")
    preparing = Process(worker.prepare, engine, job)
    try:
        preparing.answer(PREPARE_LIMIT_S, report)
    finally:
        preparing.close()
