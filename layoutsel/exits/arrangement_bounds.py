"""Lower bounds on the latencies of all arrangements that begin alike.

Open branches run at once on the worker that suits each of them best, and delay nothing. No worker
slows another one down. Decided branches on one worker wait for each other where their order of
readiness is certain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.latencies import LatencyModel
from layoutsel.exits.simulate import stage_pieces

_MARGIN = 1 - 1e-9
"""Factor on times that are compared with sums in another order."""
Lower = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Least times by pattern, of least times of results, sure exits, and the number decided."""


def _first(known_us: np.ndarray, sure: np.ndarray, decided: int) -> np.ndarray:
    return ANSWERS["first"](known_us, sure)[1]


def _ordered(known_us: np.ndarray, sure: np.ndarray, decided: int) -> np.ndarray:
    """A decided exit waits for the decided ones before it; an open exit for all of them."""
    here = sure[:, :decided] & ~np.isnan(known_us[:decided])
    before_us = np.fmax.accumulate(np.concatenate(([0.0], known_us[:decided])))
    later_us = np.maximum(_first(known_us[decided:], sure[:, decided:], 0), before_us[-1])
    if not decided:
        return later_us
    return np.where(here.any(axis=1), before_us[1:][here.argmax(axis=1)], later_us)


LOWER: Mapping[str, Lower] = {"first": _first, "ordered": _ordered}
"""Least times by rule of :data:`layoutsel.exits.answers.ANSWERS`."""


class ArrangementBounds:
    """Lower bounds for the arrangements of one network.

    Parameters
    ----------
    model
        Latencies of whole arrangements.
    answer
        Entry of :data:`layoutsel.exits.answers.ANSWERS`.
    """

    def __init__(self, model: LatencyModel, answer: str) -> None:
        self._model = model
        self._lower = LOWER[answer]
        self._hand_us = model.simulator.handover_us
        self._copy_us = model.simulator.copy_us
        costs = model.simulator.costs
        self._call_us = model.simulator.call_us
        self._needs = costs.needs
        self._has_late = any(costs.late.values())
        self._trunk_us = {
            worker: [sum(pieces) for pieces in stage_pieces(stages, costs.start_us)]
            for worker, stages in costs.trunk_us.items()
        }
        self._branch_us = {
            worker: [sum(pieces) for pieces in stage_pieces(stages, costs.start_us)]
            for worker, stages in costs.branch_us.items()
        }

    def value_us(
        self,
        trunk: str,
        decided: Sequence[str | None],
        options: Sequence[Sequence[str | None]],
        objective: str,
    ) -> float:
        """Lower bound on an objective, microseconds.

        Parameters
        ----------
        trunk
            Worker of the trunk.
        decided
            Workers of the first branches.
        options
            Workers that each branch may have.
        objective
            Entry of :data:`layoutsel.exits.latencies.OBJECTIVES`.
        """
        begun = Arrangement(trunk=trunk, branches=tuple(decided))
        if not self._has_late:
            return self._fold_us([(begun, 1.0)], options, objective)
        options = [(*workers, trunk) for workers in options]  # of requests in sequence
        if len(decided) == len(options):
            return self._fold_us(self._model.ways(begun), options, objective)
        # Later branches decide how many requests run in sequence.
        ways = dict.fromkeys((begun, begun.in_sequence))
        return min(self._fold_us([(way, 1.0)], options, objective) for way in ways)

    def _fold_us(
        self,
        ways: Sequence[tuple[Arrangement, float]],
        options: Sequence[Sequence[str | None]],
        objective: str,
    ) -> float:
        """Lower bound for requests of which a share goes each of several ways, microseconds."""
        times_us = []
        for way, _ in ways:
            least_us = self._least_us(way.trunk, way.branches, options)
            known_us = np.where(self._model.may_answer, least_us, math.nan)
            times_us.append(self._lower(known_us, self._model.sure, len(way.branches)))
        return self._model.fold_us(objective, times_us, ways)

    def _least_us(
        self,
        trunk: str,
        decided: Sequence[str | None],
        options: Sequence[Sequence[str | None]],
    ) -> list[float]:
        """Least time of each exit's result, microseconds; NaN for exits that are off."""
        segments_us = self._trunk_us[trunk]
        reached_us = list(accumulate(segments_us))
        now_us = self._call_us(Arrangement(trunk=trunk, branches=tuple(decided)))
        found: list[float] = []
        for index, worker in enumerate(decided):
            now_us += segments_us[index] + self._copy_us(trunk, worker, index)
            if worker is None:
                found.append(math.nan)
                continue
            start_us = now_us + self._hand_us(trunk, worker, index)
            for other in self._needs[index]:
                source = decided[other]
                assert source is not None, "the search leaves these out"
                start_us = max(start_us, found[other] + self._hand_us(source, worker, other))
            for other in range(index):
                if decided[other] == worker != trunk and self._is_first(
                    trunk, worker, other, index, reached_us
                ):
                    start_us = max(start_us, found[other])
            found.append(start_us + self._branch_us[worker][index])
            if worker == trunk:
                now_us = found[index]
        for index in range(len(decided), len(options)):
            now_us += segments_us[index]
            found.append(self._open_us(trunk, index, options[index], now_us, found))
        return [*found, now_us + segments_us[-1]]

    def _open_us(
        self,
        trunk: str,
        index: int,
        options: Sequence[str | None],
        now_us: float,
        found: Sequence[float],
    ) -> float:
        """Least time of an open exit's result, microseconds; NaN if it is off."""
        read_us = [found[other] for other in self._needs[index]]
        if any(map(math.isnan, read_us)):
            return math.nan
        ends_us = (
            max(now_us + self._hand_us(trunk, worker, index), *read_us, 0.0)
            + self._branch_us[worker][index]
            for worker in options
            if worker is not None
        )
        return min(ends_us, default=math.nan)

    def _is_first(
        self, trunk: str, worker: str, index: int, later: int, reached_us: Sequence[float]
    ) -> bool:
        """True if a branch is ready on `worker` before a later one, whatever else happens."""
        between_us = reached_us[later] - reached_us[index]
        late_us = self._hand_us(trunk, worker, index) - self._hand_us(trunk, worker, later)
        # The margin covers rounding; equal times are in the order of the branches.
        return not self._needs[index] and (late_us <= 0 or late_us < between_us * _MARGIN)
