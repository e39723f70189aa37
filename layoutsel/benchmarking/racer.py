"""An engine's process, seen from the outside: asked for turns, and given up when it dies or hangs."""

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
from layoutsel.benchmarking.engines import ENGINES, EngineJob

PREPARE_LIMIT_S = 6 * 3600.0
"""Tuning takes hours."""
LOAD_LIMIT_S = 900.0
TURN_LIMIT_S = 900.0

Report = Callable[[str], None]


class EngineError(Exception):
    """What an engine's process said before it ended, or how it ended."""


@dataclass
class Racer:
    """A loaded engine and its times so far."""

    engine: str
    process: Process
    loaded: dict[str, Any]
    times_ms: list[float] = field(default_factory=list)
    runs_per_turn: int = 1
    spent_s: float = 0.0
    """Wall time of its turns."""
    error: str | None = None
    """Why it takes no further part."""

    def turn(self, runs: int) -> list[float]:
        """Times of `runs` runs, milliseconds; none, and `error` set, where it fails."""
        start = time.perf_counter()
        try:
            return list(self.process.ask(runs, TURN_LIMIT_S))
        except EngineError as error:
            self.error = str(error)
            return []
        finally:
            self.spent_s += time.perf_counter() - start


class Process:
    """A spawned process that answers over a pipe. Close it when done."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=target, args=(theirs, *arguments), daemon=True
        )
        self.process.start()
        theirs.close()

    def ask(self, question: Any, limit_s: float, report: Report | None = None) -> Any:
        """Send `question` and wait for the answer."""
        try:
            self.connection.send(question)
        except OSError:
            raise self._died() from None
        return self.answer(limit_s, report)

    def answer(self, limit_s: float, report: Report | None = None) -> Any:
        """Wait for an answer; texts of progress on the way go to `report`.

        Raises
        ------
        EngineError
            If it answers with an error, dies, or takes longer than `limit_s`.
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
        """End the process, if it has not ended."""
        self.connection.close()
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def start(engine: str, job: EngineJob, data: Path, report: Report) -> Racer:
    """Prepare and load an engine.

    Raises
    ------
    EngineError
        If it cannot run the model; says why.
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
