"""Answers of single requests: in one call of the plugin if possible, and stage by stage if not."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from layoutsel.device.signature import Signature
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.chained_answers import ChainedAnswers
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.request import ExitRequest
from layoutsel.exits.runner_pool import RunnerPool
from layoutsel.exits.verdict import AnswerRule
from layoutsel.runtime.arrays import to_array, to_tensor
from layoutsel.runtime.binding import bind

logger = logging.getLogger(__name__)


class SingleAnswers:
    """Answers one request at a time, on any of several arrangements.

    Parameters
    ----------
    inputs
        Inputs of the model.
    exits
        Names of the exits.
    pool
        Runs requests stage by stage.
    first
        Arrangement whose runner copies results.
    """

    def __init__(
        self,
        inputs: Sequence[Signature],
        exits: Sequence[str],
        pool: RunnerPool,
        first: Arrangement,
    ) -> None:
        self._inputs, self._exits, self._pool = inputs, exits, pool
        self._first = first
        self._chained = ChainedAnswers(inputs, exits)
        self._warned_of_nan = False

    def answer(
        self,
        rule: AnswerRule,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
        arrangement: Arrangement,
        deadline_s: float = math.inf,
    ) -> ExitAnswer:
        """Answer a request by a time of the performance counter, seconds.

        Errors are those of :meth:`layoutsel.exits.executor.ExitModel.by`.
        """
        if deadline_s == math.inf and not (self._pool.is_closed or self._pool.has_failed):
            found = self._chained.answer(rule, arguments, named, arrangement, self._pool.from_last)
            if found is not None:
                answer, has_nan = found
                if has_nan:
                    self.warn_of_nan()
                return answer
        return self.run(rule, arguments, named, arrangement, deadline_s=deadline_s)[1]

    def prepare(
        self,
        whole: AnswerRule,
        rule: AnswerRule,
        inputs: Sequence[np.ndarray],
        arrangement: Arrangement,
    ) -> None:
        """Prepare primitives and memory of an arrangement, by requests with these rules.

        `whole` is a rule by which the final exit answers.
        """
        self.run(whole, inputs, {}, arrangement)
        from_last = self._pool.from_last
        self._chained.add(arrangement, from_last, self._pool.chain(arrangement))
        self._chained.answer(rule, inputs, {}, arrangement, from_last)

    def run(
        self,
        rule: AnswerRule,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
        arrangement: Arrangement,
        *,
        deadline_s: float = math.inf,
        is_traced: bool = False,
    ) -> tuple[ExitRequest, ExitAnswer]:
        """Run the stages of a request one by one, and return it with its answer.

        Parameters
        ----------
        rule
            Conditions under which an exit answers.
        arguments, named
            Inputs by position and by name.
        arrangement
            Workers of trunk and branches.
        deadline_s
            Time of the performance counter, seconds.
        is_traced
            True to keep the runs of stages.
        """
        start_s = time.perf_counter()
        tensors = [to_tensor(value) for value in bind(self._inputs, arguments, named)]
        request = self._pool.run(
            arrangement, rule, tensors, deadline_s=deadline_s, is_traced=is_traced
        )
        if request.verdict.has_nan:
            self.warn_of_nan()
        assert request.verdict.answer is not None
        if is_traced:  # on the axis of its runs, and without the wait for the end of all of them
            us = 1e6 * (request.ended_s - request.start_s)
        else:
            us = 1e6 * (time.perf_counter() - start_s)
        return request, self.read(request, request.verdict.answer, us)

    def read(self, request: ExitRequest, exit_: int, us: float) -> ExitAnswer:
        """Answer with the result of an exit that has arrived, and a time in microseconds."""
        values, score, label = request.result(exit_)
        (values,) = self._pool.caller(self._first).own(request.inputs, [values])
        return ExitAnswer(
            label=label,
            scores=to_array(values),
            score=score,
            exit=self._exits[exit_],
            us=us,
            cancelled=request.is_early,
            at_deadline=request.verdict.is_settled,
        )

    def warn_of_nan(self) -> None:
        """Warn once of scores that are not numbers."""
        if not self._warned_of_nan:
            self._warned_of_nan = True
            logger.warning("a score of an exit is not a number: such exits count as unsure")
