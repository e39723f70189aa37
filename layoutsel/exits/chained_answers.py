"""Answers of multi-exit networks on one worker, each in one call of the plugin."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from layoutsel.device.signature import Signature
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.exit_chain import ExitChain
from layoutsel.exits.verdict import AnswerRule
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.binding import bind


class ChainedAnswers:
    """Answers requests that need no deadline, no trace and no patience.

    Parameters
    ----------
    inputs
        Inputs of the model.
    exits
        Names of the exits.
    chains
        Chain of each arrangement of one worker.
    """

    def __init__(
        self,
        inputs: Sequence[Signature],
        exits: Sequence[str],
        chains: Mapping[Arrangement, ExitChain],
    ) -> None:
        self._inputs, self._exits, self._chains = inputs, exits, chains
        # The plugin checks shapes and types of what the stages read, but no indices.
        places = tuple(range(len(inputs)))
        self._is_direct = not any(one.ranges for one in inputs) and all(
            chain.places == places for chain in chains.values()
        )

    def answer(
        self,
        rule: AnswerRule,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
        arrangement: Arrangement,
    ) -> tuple[ExitAnswer, bool] | None:
        """Answer a request, and tell if a score was not a number.

        None if the arrangement, the rule or a fork takes more than one call.

        Raises
        ------
        InputError
            If an input is missing, unknown, of another shape or element type, or holds an index
            out of range.
        """
        chain, levels = self._chains.get(arrangement), rule.levels
        if chain is None or levels is None:
            return None
        start_s = time.perf_counter()
        found = chain.answer(levels, arguments) if self._is_direct and not named else None
        if found is None:
            bound = bind(self._inputs, arguments, named)
            found = chain.answer(levels, [to_tensor(bound[place]) for place in chain.places])
        if found is None:
            return None
        us = 1e6 * (time.perf_counter() - start_s)
        answer = ExitAnswer(
            label=found.label,
            scores=found.values,
            score=found.score,
            exit=self._exits[found.exit],
            us=us,
            cancelled=found.exit + 1 < len(self._exits),
        )
        return answer, found.has_nan
