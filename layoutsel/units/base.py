"""A compute unit: one object in a table. A third party adds one through the entry-point group ``layoutsel.units``.

What is no number (NaN) and what is infinite, on every unit
-----------------------------------------------------------
A unit gives what ONNX Runtime gives, which is what IEEE 754 says of the formula. In particular:

- NaN passes through every element-wise operator: Relu, Clip, Max and Min of two tensors as well, and where they are fused
  behind a product. Sums and averages of it are NaN.
- A softmax over nothing but -∞ is NaN. A row that is masked with the least finite number has equal shares, in every
  precision: a finite number stays finite where it is rounded to bfloat16, an infinite one stays infinite.
- The largest of a window or an axis of -∞ is -∞. A NaN in it may win or not, as in ONNX Runtime.

``tests/units/test_not_finite.py`` holds the table. Exceptions:

- oneDNN loses NaN in a maximum or minimum that it fuses behind a product, a sum or another element-wise operator: Relu, Clip,
  Max and Min give the other operand there. In plain layout, a Relu fused behind a convolution may keep NaN and give NaN for
  -∞ instead, and a fused Sigmoid give 0 for NaN. Where such an operator stands alone, with a constant, it follows the rule.
- A fused exponential of oneDNN is infinite for NaN, its Gelu NaN for ∞; its pooling and its reductions give the least finite
  number for -∞.
- Winograd kernels and products in pairs of bfloat16 give NaN for all results that share a tile or a sum with an infinity.
- TVM takes ``x - x`` and ``x * 0`` for 0; CUDA's code is generated with fast arithmetic, which promises nothing.
- Reductions over long axes on devices give the least finite number for -∞.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from tvm import relax

from layoutsel.core.choices import FALLBACKS
from layoutsel.core.precision import F32, MODES, PrecisionMode
from layoutsel.cost.graph import Subgraph
from tvm_passes.backends import Backend, register_backend
from tvm_passes.decision import Decision
from tvm_passes.devices import HOST, DeviceId, kind_of_unit
from tvm_passes.errors import Decline, UnitUnavailable
from tvm_passes.precisions import generic_precisions
from tvm_passes.registry import Registry, entries_in
from tvm_passes.targets import cross_target

logger = logging.getLogger(__name__)

Admits = Callable[[Subgraph, Decision], bool | Decline]
"""Whether a decision is asked for at all; a decline where it would be, but for this sub-graph."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What the planner knows of a compute unit."""

    backend: Backend
    """Legality and lowering."""
    offers: Callable[[Subgraph], Iterator[Decision]]
    """The decisions worth asking about for a sub-graph, the plainest first."""
    precisions: tuple[str, ...] = (F32,)
    """Precisions that it may offer; a mode without any of them leaves the unit out."""
    by_default: bool = True
    """Whether it is used where no units are named."""

    @property
    def name(self) -> str:
        """As decisions name it."""
        return self.backend.name

    @property
    def all_precisions(self) -> tuple[str, ...]:
        """Precisions that it may offer, those of other packages that its generic code takes included."""
        return tuple(dict.fromkeys((*self.precisions, *generic_precisions(self.name))))

    def unavailable(self) -> str | None:
        """Why it cannot be used on the machine that code is generated for; None where it can."""
        return self.backend.absent()

    def candidates(
        self,
        subgraph: Subgraph,
        function: relax.Function,
        admits: Admits,
        devices: Sequence[Sequence[DeviceId]],
    ) -> Iterator[Decision | Decline]:
        """Yield each decision that it offers and `admits` lets pass, or why that one is not possible.

        `devices` are groups of devices that are alike: one answer holds for all of a group.
        """
        for decision in self.offers(subgraph):
            answer = admits(subgraph, decision)
            if isinstance(answer, Decline):
                yield answer
            for group in devices if answer is True else ():
                decline = self.backend.supports(function, decision.on(group[0]))
                yield from (decline,) if decline else map(decision.on, group)


def own_units() -> list[Unit]:
    """Our own units, one file of this package each, in the order of their ranks."""
    found = cast("list[Unit]", entries_in("layoutsel.units", "UNIT"))
    return sorted(found, key=lambda unit: unit.backend.rank)


UNITS: Registry[Unit] = Registry("unit", own_units, Unit)
"""All units, available or not: ours in the order of their ranks, then those of other packages."""


def register(unit: Unit) -> None:
    """Add a unit, and its back end; raises :class:`LayoutselError` if another one has its name."""
    UNITS.register(unit)
    register_backend(unit.backend)


def units() -> Mapping[str, Unit]:
    """Every known unit, available or not: ours first, then those of other packages."""
    return UNITS


def select(
    names: tuple[str, ...] | None = None,
    mode: PrecisionMode = MODES[F32],
) -> dict[str, Unit]:
    """The named units, or every available one by default that offers a precision of `mode`.

    By default, another machine than this one uses the devices that are named for it as well.

    Raises
    ------
    UnitUnavailable
        If a named unit is unknown, the machine lacks it or it offers none of the precisions.
    """
    known = units()
    machine = cross_target()
    named = {DeviceId.named(name).kind for name in machine.devices} if machine else set()
    if absent := sorted(named - {kind_of_unit(unit) for unit in known}):
        raise UnitUnavailable(
            f"the machine has a device {absent[0]!r}: expected those of units, {', '.join(known)}"
        )
    if names is None:
        return {
            name: unit
            for name, unit in known.items()
            if (unit.by_default or kind_of_unit(name) in named)
            and not _idle(unit, mode)
            and unit.unavailable() is None
        }
    for name in names:
        if name not in known:
            raise UnitUnavailable(f"unknown unit {name!r}: expected one of {', '.join(known)}")
        if reason := known[name].unavailable():
            raise UnitUnavailable(f"unit {name!r} cannot be used here: {reason}")
        if _idle(known[name], mode):
            raise UnitUnavailable(
                f"unit {name!r} computes in {' and '.join(known[name].all_precisions)} alone: got precision "
                f"{mode.name!r}; expected one that offers them"
            )
    return {name: known[name] for name in names}


def with_default_units(
    names: Collection[str], mode: PrecisionMode = MODES[F32]
) -> tuple[str, ...] | None:
    """Units to name where those in `names` shall be among them; None where they are used by default."""
    further = [n for n, unit in units().items() if n in names and not unit.by_default]
    return (*select(None, mode), *further) if further else None


def missing_devices(names: Container[str]) -> dict[str, str]:
    """Those of the named units whose device is missing, with the reasons."""
    named = [unit for name, unit in units().items() if name in names]
    reasons = {u.name: u.unavailable() for u in named if u.backend.device != HOST}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def present_units(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split requested units into those to choose from and those whose device is missing; warn of the latter."""
    missing = missing_devices(names)
    for name, reason in missing.items():
        logger.warning("unit %r is left out, with the pins to it: %s", name, reason)
    return tuple(name for name in names if name not in missing) or FALLBACKS, tuple(missing)


def _idle(unit: Unit, mode: PrecisionMode) -> bool:
    return set(unit.all_precisions).isdisjoint(mode.offered)
