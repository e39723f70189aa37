"""Execution of multi-exit networks: one answer per request, as soon as an exit is sure."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from layoutsel.device.own_threads import FORK_WAITS_S
from layoutsel.device.threads import available_cores
from layoutsel.device.turns import Turn
from layoutsel.errors import LayoutselError, WorkerClosed
from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement, WorkerKind
from layoutsel.exits.lanes import lanes_of
from layoutsel.exits.policy import Policy
from layoutsel.exits.request import ExitRequest, Tensor
from layoutsel.exits.runners import RunHere, Runner, RunOnWorkers
from layoutsel.exits.scores import RESULTS
from layoutsel.exits.stage_runs import StageRun
from layoutsel.exits.verdict import AnswerRule
from layoutsel.runtime.arrays import to_array, to_tensor
from layoutsel.runtime.binding import bind
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs

logger = logging.getLogger(__name__)

LIMIT_S = 10.0
"""Default time limit of a request on a worker, seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExitAnswer:
    """Answer of a network to one request."""

    label: int
    """Predicted class."""
    scores: np.ndarray
    """Values of the classes at the exit, (1, classes): logits or probabilities."""
    score: float
    """Score of the exit."""
    exit: str
    """Name of the exit."""
    us: float
    """Time from the call to the answer, microseconds."""
    cancelled: bool
    """True if the answer came before the end of the trunk, which then stopped."""


class ExitModel:
    """A multi-exit network that answers as soon as an exit is sure; a context manager.

    With all branches on the trunk's worker, everything runs on the calling thread, one stage after
    the other. Otherwise trunk and branches run at the same time, each worker on its own cores, and
    an answer stops between two sub-graphs what it makes useless.

    Requests of several threads run one by one. If a worker fails or exceeds the time limit, the
    trunk alone answers from then on, with one warning.

    Parameters
    ----------
    compiled
        Compiled model, divided into trunk and branches, with the results of
        :meth:`layoutsel.exits.network.ExitNetwork.scored`.
    exits
        Names of the exits, the final one last.
    arrangement
        Workers of trunk and branches.
    policy
        Thresholds of the exits.
    workers
        Workers in `arrangement`; others are ignored.
    answer
        Entry of :data:`layoutsel.exits.answers.ANSWERS`.
    limit_s
        Time limit of a request on a worker, seconds.

    Raises
    ------
    LayoutselError
        If the parts do not fit each other.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        exits: Sequence[str],
        arrangement: Arrangement,
        policy: Policy,
        *,
        workers: Sequence[WorkerKind],
        answer: str = "first",
        limit_s: float = LIMIT_S,
    ) -> None:
        kinds = {kind.name: kind for kind in workers}
        _check(compiled, exits, arrangement, policy, kinds, answer)
        self.exits = tuple(exits)
        """Names of the exits."""
        self.arrangement = arrangement
        """Workers of trunk and branches, as asked for."""
        self.compiled = compiled
        """Compiled model, divided into trunk and branches."""
        self._rule = AnswerRule(policy=policy, answer=answer)
        # The final exit answers after all others in order.
        nobody = replace(policy, thresholds=(None,) * len(exits), certificate=None)
        self._all = AnswerRule(policy=nobody, answer="ordered")
        self._turn = Turn("ran a request", FORK_WAITS_S)
        self._is_closed = False
        self._warned_of_nan = False
        self._caller = compiled.caller(threads=kinds[arrangement.trunk].threads)
        self._runner = self._made(kinds, limit_s)
        self.all(*random_inputs(compiled.inputs))  # prepares primitives and memory of all stages

    @property
    def is_off(self) -> bool:
        """True if the trunk alone answers: as arranged, or after a failure."""
        return len(self._runner.lanes.exits) == 1

    def __call__(self, /, *arguments: np.ndarray, **named: np.ndarray) -> ExitAnswer:
        """Answer a request with inputs by position or by name.

        Raises
        ------
        InputError
            If an input is missing, unknown, of another shape or element type, or holds an index
            out of range.
        WorkerClosed
            If the model is closed.
        """
        return self._answers(self._rule, arguments, named)[1]

    def all(self, /, *arguments: np.ndarray, **named: np.ndarray) -> tuple[ExitAnswer, ...]:
        """Run all exits that are on to their end, and return the answer of each.

        Errors are those of a call.
        """
        request, last = self._answers(self._all, arguments, named)
        return (*(self._read(request, e, last.us) for e in request.lanes.exits[:-1]), last)

    def trace(
        self, /, *arguments: np.ndarray, **named: np.ndarray
    ) -> tuple[ExitAnswer, tuple[StageRun, ...]]:
        """Answer a request, wait until all workers are idle, and return the runs of its stages.

        Errors are those of a call.
        """
        request, answer = self._answers(self._rule, arguments, named, is_traced=True)
        return answer, tuple(sorted(request.timeline or (), key=lambda run: run.start_us))

    def forced(self, sure: Collection[int], inputs: Sequence[np.ndarray]) -> ExitAnswer:
        """Answer a request as if exactly these exits were sure, for measurements.

        Parameters
        ----------
        sure
            Numbers of exits; the final one always is.
        inputs
            Inputs by position.
        """
        levels = (*(0.0 if e in sure else None for e in range(len(self.exits) - 1)), None)
        policy = replace(self._rule.policy, thresholds=levels, patience=None, certificate=None)
        return self._answers(replace(self._rule, policy=policy), inputs, {})[1]

    def save(self, path: str | Path) -> Path:
        """Write the artifact; :func:`layoutsel.exits.building.load` opens it.

        Errors are those of :meth:`CompiledModel.save`.
        """
        return self.compiled.save(path)

    def close(self) -> None:
        """End the workers.

        An active request of another thread fails. On that thread alone, it ends by itself.
        """
        self._is_closed = True
        self._runner.close()

    def __enter__(self) -> ExitModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answers(
        self,
        rule: AnswerRule,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
        *,
        is_traced: bool = False,
    ) -> tuple[ExitRequest, ExitAnswer]:
        start_s = time.perf_counter()
        tensors = [to_tensor(value) for value in bind(self.compiled.inputs, arguments, named)]
        with self._turn:
            request = self._run(rule, tensors, is_traced=is_traced)
        if request.verdict.has_nan and not self._warned_of_nan:
            self._warned_of_nan = True
            logger.warning("a score of an exit is not a number: such exits count as unsure")
        assert request.verdict.answer is not None
        us = 1e6 * (request.ended_s - start_s)
        return request, self._read(request, request.verdict.answer, us)

    def _run(self, rule: AnswerRule, tensors: Sequence[Tensor], *, is_traced: bool) -> ExitRequest:
        """Run a request, and again with exits off if a worker fails."""
        runner = self._runner
        if not self._is_closed and runner.failure is None:
            request = runner.run(rule, tensors, is_traced=is_traced)
            if request.error is None:
                return request
        if self._is_closed:
            raise WorkerClosed("the multi-exit network is closed: load or compile it again")
        self._give_up(str(runner.failure))
        return self._runner.run(rule, tensors, is_traced=is_traced)

    def _made(self, kinds: Mapping[str, WorkerKind], limit_s: float) -> Runner:
        lanes = lanes_of(self.compiled.stages, len(self.exits), self.arrangement)
        if len(lanes.lanes) == 1:
            return RunHere(lanes, self._caller)
        cores = _cores([kinds[lane.worker] for lane in lanes.lanes])
        if cores is None:
            needed = " and ".join(f"{kinds[one.worker].cores}" for one in lanes.lanes)
            _warn(f"the workers take {needed} cores; this process has {len(available_cores())}")
            return self._trunk_alone()
        workers = [
            self.compiled.worker(
                threads=kinds[lane.worker].threads, cores=own or None, limit_s=limit_s
            )
            for lane, own in zip(lanes.lanes, cores, strict=True)
        ]
        return RunOnWorkers(lanes, workers, limit_s)

    def _trunk_alone(self) -> Runner:
        off = Arrangement(trunk=self.arrangement.trunk, branches=(None,) * (len(self.exits) - 1))
        return RunHere(lanes_of(self.compiled.stages, len(self.exits), off), self._caller)

    def _give_up(self, why: str) -> None:
        """Let the trunk alone answer from now on."""
        _warn(why)
        failed, self._runner = self._runner, self._trunk_alone()
        failed.close()

    def _read(self, request: ExitRequest, exit_: int, us: float) -> ExitAnswer:
        values, score, label = request.result(exit_)
        (values,) = self._caller.own(request.inputs, [values])
        return ExitAnswer(
            label=label,
            scores=to_array(values),
            score=score,
            exit=self.exits[exit_],
            us=us,
            cancelled=request.is_early,
        )


def _warn(why: str) -> None:
    logger.warning("exits are off, and the trunk alone answers: %s", why)


def _cores(kinds: Sequence[WorkerKind]) -> list[tuple[int, ...]] | None:
    """Assign cores to workers that run at the same time; None if there are too few."""
    free = list(available_cores())
    found = []
    for kind in kinds:
        found.append(tuple(free[: kind.cores]))
        free = free[kind.cores :]
    return found if all(map(_has_all, found, kinds)) else None


def _has_all(cores: tuple[int, ...], kind: WorkerKind) -> bool:
    return len(cores) == kind.cores


def _check(
    compiled: CompiledModel,
    exits: Sequence[str],
    arrangement: Arrangement,
    policy: Policy,
    kinds: Mapping[str, WorkerKind],
    answer: str,
) -> None:
    """Reject parts that do not fit each other."""
    count = len(exits)
    used = {name for name in (arrangement.trunk, *arrangement.branches) if name is not None}
    dtypes = [one.dtype for one in compiled.outputs][: RESULTS * count]
    scored = dtypes[1::RESULTS] == ["float32"] * count and dtypes[2::RESULTS] == ["int64"] * count
    for is_right, got, expected in (
        (answer in ANSWERS, f"answer={answer!r}", f"one of {', '.join(ANSWERS)}"),
        (
            len(arrangement.branches) == count - 1,
            f"{len(arrangement.branches)} branches",
            f"{count - 1}, one for each exit before the final one",
        ),
        (
            len(policy.thresholds) == count,
            f"{len(policy.thresholds)} thresholds",
            f"{count}, one for each exit",
        ),
        (kinds.keys() >= used, f"the workers {sorted(used)}", f"some of {', '.join(kinds)}"),
        (
            scored,
            f"a model with results of the types {dtypes}",
            "values of the classes, a float32 score and an int64 class for each exit: compile the "
            "scored model of the network",
        ),
    ):
        if not is_right:
            raise LayoutselError(f"multi-exit network: got {got}; expected {expected}")
