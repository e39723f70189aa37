"""Answers of multi-exit networks, each in one call of the plugin."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from layoutsel.device.signature import Signature
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.exit_chain import ExitChain
from layoutsel.exits.lane_chain import LaneChain
from layoutsel.exits.verdict import AnswerRule
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.binding import bind

_Chain: TypeAlias = ExitChain | LaneChain
_NONE: Mapping[bool, _Chain] = {}


class ChainedAnswers:
    """Answers requests that need no deadline, no trace and no patience.

    Parameters
    ----------
    inputs
        Inputs of the model.
    exits
        Names of the exits.
    """

    def __init__(self, inputs: Sequence[Signature], exits: Sequence[str]) -> None:
        self._inputs, self._exits = inputs, exits
        self._chains: dict[Arrangement, dict[bool, _Chain]] = {}
        # The plugin checks shapes and types of what the stages read, but no indices.
        self._is_direct = not any(one.ranges for one in inputs)
        self._places = tuple(range(len(inputs)))

    def add(self, arrangement: Arrangement, from_last: bool, chain: _Chain | None) -> None:
        """Answer requests on an arrangement by a chain; see :attr:`RunnerPool.from_last`."""
        if chain is not None:
            self._chains.setdefault(arrangement, {})[from_last] = chain

    def answer(
        self,
        rule: AnswerRule,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
        arrangement: Arrangement,
        from_last: bool,
    ) -> tuple[ExitAnswer, bool] | None:
        """Answer a request, and tell if a score was not a number.

        None if the arrangement, the rule, a fork or a failure takes another way.

        Raises
        ------
        InputError
            If an input is missing, unknown, of another shape or element type, or holds an index
            out of range.
        """
        chain = self._chains.get(arrangement, _NONE).get(from_last)
        if chain is None or rule.levels is None:
            return None
        start_s = time.perf_counter()
        is_direct = self._is_direct and not named and chain.places == self._places
        found = chain.answer(rule, arguments) if is_direct else None
        if found is None:
            bound = bind(self._inputs, arguments, named)
            found = chain.answer(rule, [to_tensor(bound[place]) for place in chain.places])
        if found is None:
            return None
        us = 1e6 * (time.perf_counter() - start_s)
        answer = ExitAnswer(
            label=found.label,
            scores=found.values,
            score=found.score,
            exit=self._exits[found.exit],
            us=us,
            cancelled=found.is_early,
        )
        return answer, found.has_nan
