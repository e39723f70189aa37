"""Uncertainty of predictions for candidates that a trained model has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from layoutsel.core.workload import Workload
from layoutsel.cost.features import DEVICE_LAYOUTS, VOCABULARY
from layoutsel.cost.model_card import PartCard
from tvm_passes.algorithms import ALGORITHMS
from tvm_passes.decision import Decision
from tvm_passes.operators import OPERATORS

_MACHINE, _OPERATOR, _LAYOUT, _ALGORITHM, _FUSED, _CODE = 0.2, 0.4, 0.3, 0.3, 0.2, 0.7
"""Added uncertainty for each unfamiliar part: half the interquartile range of log time.

The last is the median error of the shipped model's CPU predictions without facts about the code.
"""

_LAYOUTS = frozenset({*VOCABULARY["layout"], *DEVICE_LAYOUTS})
_OPERATORS = frozenset(
    {*VOCABULARY["anchor"], *(name for name, entry in OPERATORS.items() if entry.encoding)}
)
_UNHINTED = ("lrn",)
"""Operators without facts about their code in older models of the CPU.

Units on devices state no facts about any kernel.
"""


@dataclass(frozen=True, kw_only=True)
class Familiar:
    """Names in the training data of a cost model for one unit; other names add uncertainty."""

    machine: bool
    """True if the part was trained on the machine, or calibrated to it."""
    anchors: frozenset[str]
    """Anchor operators of sub-graphs."""
    layouts: frozenset[str]
    """Layouts of decisions."""
    algorithms: frozenset[str]
    """Algorithms of decisions."""
    fused: frozenset[str]
    """All operators of sub-graphs, fused ones included."""
    unhinted: frozenset[str]
    """Anchor operators of sub-graphs that had no facts about their generated code."""

    @classmethod
    def of(cls, card: PartCard, *, machine: bool, device: bool = False) -> Familiar:
        """Read the names from the description of a trained cost model for one unit.

        Names that an older description lacks default to all names that have a feature.

        Parameters
        ----------
        card
            Description of the cost model for the unit.
        machine
            True if it was trained on the machine, or calibrated to it.
        device
            True if the unit computes on a device.
        """
        older = card.operators if device else _UNHINTED
        return cls(
            machine=machine,
            anchors=frozenset(card.operators),
            layouts=frozenset(card.layouts) or _LAYOUTS,
            algorithms=frozenset(card.algorithms) or _algorithms(),
            fused=frozenset(card.fused) or _OPERATORS,
            unhinted=frozenset(older if card.unhinted is None else card.unhinted),
        )

    def doubts(self, workload: Workload, decision: Decision) -> Iterator[float]:
        """Yield the uncertainty that each unfamiliar part of a candidate adds.

        Each is half the interquartile range of the natural logarithm of time.
        """
        if workload.operator not in self.unhinted and not workload.hints_of(decision):
            yield _CODE
        if not self.machine:
            yield _MACHINE
        if workload.operator not in self.anchors:
            yield _OPERATOR
        if decision.layout not in self.layouts:
            yield _LAYOUT
        if decision.algorithm not in self.algorithms:
            yield _ALGORITHM
        if any(name not in self.fused and name != workload.operator for name in workload.operators):
            yield _FUSED


def _algorithms() -> frozenset[str]:
    """List the algorithms that features distinguish, by a column or by facts about their code."""
    told = (name for name, entry in ALGORITHMS.items() if entry.has_telling_hints)
    return frozenset({*VOCABULARY["algorithm"], *told})
