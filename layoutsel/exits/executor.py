"""Execution of multi-exit networks: one answer per request, as soon as an exit is sure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from layoutsel.core.closing import Closing
from layoutsel.exits.arrangement import Arrangement, WorkerKind
from layoutsel.exits.audit import AuditedRequest
from layoutsel.exits.batching import ExitBatches
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.lane_chain import LaneChain, LaneCounts
from layoutsel.exits.model_checks import check_parts
from layoutsel.exits.policy import Policy
from layoutsel.exits.runner_pool import RunnerPool
from layoutsel.exits.single_answers import SingleAnswers
from layoutsel.exits.stage_runs import StageRun
from layoutsel.exits.verdict import AnswerRule
from layoutsel.exits.waiting import WaitingRequest, answer_singly
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs

LIMIT_S = 10.0
"""Default time limit of a request on a worker, seconds."""


class ExitModel(Closing):
    """A multi-exit network that answers as soon as an exit is sure; a context manager.

    With all branches on the trunk's worker, everything runs on the calling thread, one stage after
    the other. Otherwise trunk and branches run at the same time, each worker on its own cores, and
    an answer stops between two sub-graphs what it makes useless.

    Requests of several threads queue on the workers: each of them goes on to the next request as
    soon as it has ended or stopped the last one. If a worker fails or exceeds the time limit, the
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
    others
        Arrangements that single requests may ask for, in :meth:`on` and :meth:`audited`.
    trunk_here
        True to run a trunk on the calling thread if it takes one core, has branches on one other
        worker, and the request has no deadline. That saves two switches of threads.

    Raises
    ------
    LayoutselError
        If the parts do not fit each other.
    """

    def __init__(  # noqa: PLR0913 - a model is made of that many parts
        self,
        compiled: CompiledModel,
        exits: Sequence[str],
        arrangement: Arrangement,
        policy: Policy,
        *,
        workers: Sequence[WorkerKind],
        answer: str = "first",
        limit_s: float = LIMIT_S,
        others: Sequence[Arrangement] = (),
        trunk_here: bool = True,
    ) -> None:
        kinds = {kind.name: kind for kind in workers}
        every = dict.fromkeys((arrangement, *others))
        for one in every:
            check_parts(compiled, exits, one, policy, kinds, answer)
        self.exits = tuple(exits)
        """Names of the exits."""
        self.arrangement = arrangement
        """Workers of trunk and branches, as asked for."""
        self.compiled = compiled
        """Compiled model, divided into trunk and branches."""
        self._same = partial(
            ExitModel, compiled, exits, arrangement, policy,
            workers=workers, answer=answer, limit_s=limit_s, others=others, trunk_here=trunk_here,
        )  # fmt: skip
        self._rule = AnswerRule(policy=policy, answer=answer)
        # The final exit answers after all others in order.
        nobody = replace(policy, thresholds=(None,) * len(exits), certificate=None)
        self._all = AnswerRule(policy=nobody, answer="ordered", reads_all=True)
        self._pool = RunnerPool(compiled, len(exits), kinds, limit_s, trunk_here)
        self._every = tuple(every)
        self._single = SingleAnswers(compiled.inputs, self.exits, self._pool, arrangement)
        inputs = random_inputs(compiled.inputs)
        # Prepares primitives and memory of all stages.
        for one, self.from_last in itertools.product(every, (True, False) if others else (False,)):
            self._single.prepare(self._all, self._rule, inputs, one)

    @property
    def is_off(self) -> bool:
        """True if the trunk alone answers: as arranged, or after a failure."""
        return len(self._pool.runner(self.arrangement).lanes.exits) == 1

    @property
    def from_last(self) -> bool:
        """True if later requests have the trunk on the last cores, instead of the first ones."""
        return self._pool.from_last

    @from_last.setter
    def from_last(self, is_so: bool) -> None:
        self._pool.from_last = is_so

    @property
    def places(self) -> int:
        """Number of requests in progress that keep all workers busy: 2 with several workers."""
        return min(2, len(self._pool.runner(self.arrangement).lanes.lanes))

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
        return self.on(self.arrangement, arguments, named)

    def by(
        self,
        deadline_s: float,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
    ) -> ExitAnswer:
        """Answer a request by a deadline, with the best result by then if no exit is sure.

        On several workers, the request stops between two sub-graphs; on one, between two stages.
        Other errors are those of a call.

        Parameters
        ----------
        deadline_s
            Time of :func:`time.perf_counter`, seconds.
        arguments, named
            Inputs by position and by name.

        Raises
        ------
        DeadlineMissed
            If there is no result by then.
        """
        return self.on(self.arrangement, arguments, named, deadline_s)

    def on(
        self,
        arrangement: Arrangement,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
        deadline_s: float = math.inf,
    ) -> ExitAnswer:
        """Answer a request on one of the arrangements that the model was made with.

        Errors are those of :meth:`by`.
        """
        return self._single.answer(self._rule, arguments, named, arrangement, deadline_s)

    def prepare_batches(self) -> int:
        """Prepare the code for several requests at once; returns the largest number of them.

        It is 1 if the network was compiled without batches, or no arrangement is that of a single
        worker.
        """
        found = map(self.batches, self._every)
        return max((one.most for one in found if one is not None), default=1)

    def count_at_once(self, waiting: int, arrangement: Arrangement | None = None) -> int:
        """Number of requests to give to :meth:`answer_all` when so many wait."""
        batches = self.batches(arrangement or self.arrangement)
        return 1 if batches is None else batches.count(waiting)

    def batches(self, arrangement: Arrangement) -> ExitBatches | None:
        """Return what answers several requests at once on an arrangement; None if nothing does."""
        return self._pool.batches(arrangement, self.exits)

    def batch_with(self, models: Mapping[int, CompiledModel]) -> None:
        """Set the models for several samples at once, by number; they are saved with this one."""
        self.compiled.batch_with(models)
        self._pool.forget_batches()

    def answer_all(
        self, requests: Sequence[WaitingRequest], arrangement: Arrangement | None = None
    ) -> None:
        """Answer requests, as a batch if the network was compiled for batches.

        Each of them has the answer that it has alone, as soon as one of its exits is sure. A single
        one takes the way of a call.

        Parameters
        ----------
        requests
            At most :meth:`prepare_batches` requests.
        arrangement
            One of those that the model was made with; :attr:`arrangement` if None.
        """
        chosen = arrangement or self.arrangement
        batches = self.batches(chosen) if len(requests) > 1 else None
        if batches is None or self._pool.is_closed or self._pool.has_failed:
            answer_singly(
                requests, lambda one: self.on(chosen, one.arguments, one.named, one.deadline_s)
            )
            return
        batches.answer(self._rule, requests)
        if batches.has_nan:
            self._single.warn_of_nan()

    def audited(
        self,
        arrangement: Arrangement,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
        deadline_s: float = math.inf,
    ) -> tuple[ExitAnswer, AuditedRequest | None]:
        """Answer a request after all exits of an arrangement have run to their end.

        The first of the sure exits answers, whatever the order of their results. Nothing is
        audited if the deadline comes first. Errors are those of :meth:`by`.
        """
        request, last = self._single.run(
            self._all, arguments, named, arrangement, deadline_s=deadline_s
        )
        if last.at_deadline:
            return last, None
        found = {e: request.result(e)[1:] for e in request.lanes.exits}
        scores = {e: score for e, (score, _) in found.items()}
        labels = {e: label for e, (_, label) in found.items()}
        *early, final = request.lanes.exits
        sure = tuple(e for e in early if self._rule.is_sure(e, scores, labels))
        seen = AuditedRequest(sure=sure, labels=tuple(labels[e] for e in sure), final=labels[final])
        return (self._single.read(request, sure[0], last.us) if sure else last), seen

    def all(self, /, *arguments: np.ndarray, **named: np.ndarray) -> tuple[ExitAnswer, ...]:
        """Run all exits that are on to their end, and return the answer of each.

        Errors are those of a call.
        """
        request, last = self._single.run(self._all, arguments, named, self.arrangement)
        return (*(self._single.read(request, e, last.us) for e in request.lanes.exits[:-1]), last)

    def trace(
        self, /, *arguments: np.ndarray, **named: np.ndarray
    ) -> tuple[ExitAnswer, tuple[StageRun, ...]]:
        """Answer a request, wait until all workers are idle, and return the runs of its stages.

        Errors are those of a call.
        """
        request, answer = self._single.run(
            self._rule, arguments, named, self.arrangement, is_traced=True
        )
        return answer, tuple(sorted(request.timeline or (), key=lambda run: run.start_us))

    def forced(
        self,
        sure: Collection[int],
        inputs: Sequence[np.ndarray],
        arrangement: Arrangement | None = None,
    ) -> ExitAnswer:
        """Answer a request as if exactly these exits were sure: one call of :meth:`forcing`."""
        return self.forcing(sure, inputs, arrangement)()

    def forcing(
        self,
        sure: Collection[int],
        inputs: Sequence[np.ndarray],
        arrangement: Arrangement | None = None,
    ) -> Callable[[], ExitAnswer]:
        """Return what answers a request as if exactly these exits were sure, for measurements.

        Each call takes as long as a usual request with such inputs.

        Parameters
        ----------
        sure
            Numbers of exits; the final one always is.
        inputs
            Inputs by position.
        arrangement
            One of those that the model was made with; :attr:`arrangement` if None.
        """
        levels = (*(0.0 if e in sure else None for e in range(len(self.exits) - 1)), None)
        policy = replace(self._rule.policy, thresholds=levels, patience=None, certificate=None)
        rule = replace(self._rule, policy=policy)
        return partial(self._single.answer, rule, inputs, {}, arrangement or self.arrangement)

    def lane_counts(self) -> LaneCounts | None:
        """Count the work of the last request; None unless one call ran it on two threads."""
        chain = self._pool.chain(self.arrangement)
        return chain.counts() if isinstance(chain, LaneChain) else None

    def copy(self) -> ExitModel:
        """Make another model with this one's code and weights, for requests at the same time."""
        return self._same()

    def save(self, path: str | Path) -> Path:
        """Write the artifact; :func:`layoutsel.exits.building.load` opens it.

        Errors are those of :meth:`CompiledModel.save`.
        """
        return self.compiled.save(path)

    def close(self) -> None:
        """End the workers.

        An active request of another thread fails. On that thread alone, it ends by itself.
        """
        self._pool.close()
