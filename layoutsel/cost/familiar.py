"""Parts of a question that a trained model has not seen: it answers all the same, and is less certain."""

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
"""Further half distance of the quartiles, as a logarithm, where the model has not seen this.

The last is the median error of the shipped model's predictions for the CPU without facts about the code.
"""

_LAYOUTS = frozenset({*VOCABULARY["layout"], *DEVICE_LAYOUTS})
_OPERATORS = frozenset(
    {*VOCABULARY["anchor"], *(name for name, entry in OPERATORS.items() if entry.encoding)}
)
_UNHINTED = ("lrn",)
"""The CPU states nothing about its kernel for local response normalisation; devices state nothing about any."""


@dataclass(frozen=True, kw_only=True)
class Familiar:
    """Names that one part of a trained model has seen."""

    machine: bool
    """True if it has seen the machine, or was calibrated to it."""
    anchors: frozenset[str]
    layouts: frozenset[str]
    algorithms: frozenset[str]
    fused: frozenset[str]
    """Operators next to the anchor."""
    unhinted: frozenset[str]
    """Anchor operators that it has seen without facts about the code."""

    @classmethod
    def of(cls, card: PartCard, *, machine: bool, device: bool = False) -> Familiar:
        """Read the names off a card; the names that features know, where an older card does not say.

        `machine` says whether the part knows the machine, `device` whether it is of a unit on a device.
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
        """Half distance of the quartiles, as a logarithm, that each unfamiliar part of a candidate adds."""
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
    """Algorithms that features tell apart: by a word of their own, or by facts about their code."""
    told = (name for name, entry in ALGORITHMS.items() if entry.has_telling_hints)
    return frozenset({*VOCABULARY["algorithm"], *told})
