"""A compute unit: one entry of a table, which other packages extend.

Their entry-point group is ``layoutsel.units``.

NaN and infinity on every unit
------------------------------
The results of a unit are those of ONNX Runtime, which follow IEEE 754. In particular:

- NaN passes through every element-wise operator, including Relu, Clip, and Max and Min of two
  tensors, also if they are fused into a product. Sums and averages of NaN are NaN.
- A softmax over only -∞ is NaN. A row that is masked with the lowest finite number has equal
  shares, in every precision: rounding to bfloat16 keeps finite numbers finite, and infinite ones
  infinite.
- The maximum of a window or an axis with only -∞ is -∞. NaN in it may win or not, as in ONNX
  Runtime.

``tests/units/test_not_finite.py`` contains the table. Exceptions:

- oneDNN loses NaN in a maximum or minimum that it fuses into a product, a sum or another
  element-wise operator: Relu, Clip, Max and Min return the other operand. In plain layout, a Relu
  that is fused into a convolution may keep NaN but return NaN for -∞, and a fused Sigmoid may
  return 0 for NaN. If such an operator is not fused and has a constant operand, it follows the
  rule.
- A fused exponential of oneDNN is infinite for NaN, and its Gelu NaN for ∞. Its pooling and its
  reductions return the lowest finite number for -∞.
- Winograd kernels and products in pairs of bfloat16 return NaN for all results that share a tile
  or a sum with an infinity.
- TVM simplifies ``x - x`` and ``x * 0`` to 0. CUDA's code is generated with fast arithmetic, which
  guarantees nothing.
- Reductions over long axes on devices return the lowest finite number for -∞.
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
"""Function that tells if the precision mode admits a decision for a sub-graph.

The answer is True; False if no sub-graph may have the decision; or a decline with the reason why
only this sub-graph may not.
"""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Properties of a compute unit that planning needs."""

    backend: Backend
    """Legality and lowering."""
    offers: Callable[[Subgraph], Iterator[Decision]]
    """Yields the candidate decisions for a sub-graph, the simplest first; they may be illegal."""
    precisions: tuple[str, ...] = (F32,)
    """Precisions of its candidates; a mode without any of them omits the unit."""
    by_default: bool = True
    """True if it is used when no units are named."""

    @property
    def name(self) -> str:
        """Name in decisions."""
        return self.backend.name

    @property
    def all_precisions(self) -> tuple[str, ...]:
        """Precisions of its candidates, including those of other packages for its generic code."""
        return tuple(dict.fromkeys((*self.precisions, *generic_precisions(self.name))))

    def unavailable(self) -> str | None:
        """Return the reason why it cannot be used on the target machine, or None."""
        return self.backend.absent()

    def candidates(
        self,
        subgraph: Subgraph,
        function: relax.Function,
        admits: Admits,
        devices: Sequence[Sequence[DeviceId]],
    ) -> Iterator[Decision | Decline]:
        """Yield each candidate that `admits` accepts, or the decline of an illegal one.

        `devices` are groups of identical devices: one answer holds for a whole group.
        """
        for decision in self.offers(subgraph):
            answer = admits(subgraph, decision)
            if isinstance(answer, Decline):
                yield answer
            for group in devices if answer is True else ():
                decline = self.backend.supports(function, decision.on(group[0]))
                yield from (decline,) if decline else map(decision.on, group)


def own_units() -> list[Unit]:
    """Return the built-in units, one file of this package each, by rank."""
    found = cast("list[Unit]", entries_in("layoutsel.units", "UNIT"))
    return sorted(found, key=lambda unit: unit.backend.rank)


UNITS: Registry[Unit] = Registry("unit", own_units, Unit)
"""All units, available or not: built-in ones by rank, then those of other packages."""


def register(unit: Unit) -> None:
    """Add a unit and its back end; raises :class:`LayoutselError` if another one has its name."""
    UNITS.register(unit)
    register_backend(unit.backend)


def units() -> Mapping[str, Unit]:
    """Return all units, available or not: built-in ones first, then those of other packages."""
    return UNITS


def select(
    names: tuple[str, ...] | None = None,
    mode: PrecisionMode = MODES[F32],
) -> dict[str, Unit]:
    """Return the named units; by default every available one that offers a precision of `mode`.

    If the target is another machine, the default includes the units of the devices named for it.

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
                f"unit {name!r} computes in {' and '.join(known[name].all_precisions)} alone: "
                f"got precision {mode.name!r}; expected one that offers them"
            )
    return {name: known[name] for name in names}


def with_default_units(
    names: Collection[str], mode: PrecisionMode = MODES[F32]
) -> tuple[str, ...] | None:
    """Return the default units and those in `names`; None if the default units include them."""
    further = [n for n, unit in units().items() if n in names and not unit.by_default]
    return (*select(None, mode), *further) if further else None


def missing_devices(names: Container[str]) -> dict[str, str]:
    """Return the named units whose device is missing, with the reasons."""
    named = [unit for name, unit in units().items() if name in names]
    reasons = {u.name: u.unavailable() for u in named if u.backend.device != HOST}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def present_units(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split requested units into present ones and those whose device is missing.

    A warning names each missing one.
    """
    missing = missing_devices(names)
    for name, reason in missing.items():
        logger.warning("unit %r is left out, with the pins to it: %s", name, reason)
    return tuple(name for name in names if name not in missing) or FALLBACKS, tuple(missing)


def _idle(unit: Unit, mode: PrecisionMode) -> bool:
    """Return whether a unit offers no precision of `mode`."""
    return set(unit.all_precisions).isdisjoint(mode.offered)
