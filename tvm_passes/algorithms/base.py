"""Algorithm: one entry of the table of algorithms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm_passes.decision import DIRECT

if TYPE_CHECKING:
    from tvm_passes.cpu.host import VectorUnit
    from tvm_passes.cpu.plan import KernelPlan
    from tvm_passes.cpu.subgraph import KernelSubgraph

PlanKernel = Callable[["KernelSubgraph", "VectorUnit"], "KernelPlan | str"]
"""Plans the kernel of a sub-graph, or returns the operator that is in the way."""


@dataclass(frozen=True, kw_only=True)
class CandidateContext:
    """A sub-graph on a unit in one precision, for which candidates are generated."""

    unit: str
    """Name of the compute unit."""
    anchor: str
    """Anchor operator, such as ``nn.conv2d``."""
    weights: tuple[tuple[int, ...], ...]
    """Shapes of the weights."""
    precision: str
    """Arithmetic precision, such as ``f32``."""
    layouts: tuple[str, ...]
    """Layouts that the sub-graph may have on the unit, the plain one first."""
    packed: str
    """Packed layout of f32 on the target machine."""


def nowhere(_context: CandidateContext) -> tuple[str, ...]:
    """Offer an algorithm for no sub-graph; a plan that a person edits may still name it."""
    return ()


def packed_filters(context: CandidateContext, kernel: tuple[int, int]) -> tuple[str, ...]:
    """Packed layout of f32, where the sub-graph is a convolution with filters of that size."""
    filters = [shape[2:] for shape in context.weights[:1]]
    is_offered = context.anchor == "nn.conv2d" and filters == [kernel]
    return (context.packed,) if is_offered and context.precision == "f32" else ()


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One way in which a unit computes a sub-graph: one entry of the table of algorithms."""

    name: str
    """Name in decisions."""
    about: str
    """One sentence for users: the method, and the shapes for which it pays."""
    units: tuple[str, ...]
    """Units with this algorithm; the default algorithm belongs to every unit."""
    layouts: Callable[[CandidateContext], Iterable[str]] = nowhere
    """Layouts in which it is a candidate; the unit decides about its legality."""
    plan: PlanKernel | None = None
    """Plans its kernels, on units whose code TVM generates; None if the unit has its own code."""
    recorded: bool = False
    """True if its code is the schedule of a tuning record instead of a planned kernel."""
    skips: int = 0
    """Better implementations that it passes over, on a unit whose library ranks them."""
    packed_size: float = 1.0
    """Size of packed weights relative to the plain ones."""
    speedup: float = 1.0
    """Arithmetic rate in the roofline relative to direct f32, in any precision.

    The default algorithm has the rate of the precision instead.
    """
    family: str = ""
    """Scope of the versions that measurements of it depend on, such as ``cpu.winograd``.

    Empty for a scope of its own, named after unit and algorithm; see
    :mod:`layoutsel.cost.scopes`.
    """
    code: tuple[str, ...] = ()
    """Where its code starts, each ``module:name``, for digests; its `plan` where empty."""
    encoding: str = ""
    """Word that cost models know it by; its name where empty.

    A trained model that lacks the word encodes it as "other", and is less certain.
    """
    has_telling_hints: bool = False
    """True if facts about its code tell it apart, so that models need no word for it."""
    calibration_scale: float | None = None
    """Inverse standard deviation of its coefficient in a calibration; None for no coefficient."""
    rank: int = 100
    """Position among the built-in algorithms: candidates are offered in ascending order."""

    @property
    def is_default(self) -> bool:
        """True for the algorithm that decisions have where they name none."""
        return self.name == DIRECT

    @property
    def word(self) -> str:
        """Word that cost models know it by."""
        return self.encoding or self.name

    @property
    def roots(self) -> tuple[str, ...]:
        """Where its code starts, each ``module:name``."""
        if self.code or self.plan is None:
            return self.code
        plan = getattr(self.plan, "func", self.plan)  # of a functools.partial
        return (f"{plan.__module__}:{plan.__qualname__}",)

    def families(self, unit: str) -> tuple[str, ...]:
        """Scopes of its code on a unit; none for the default algorithm, nor on other units."""
        if self.is_default:
            return ()
        family = self.family or f"{unit}.{self.name}"
        return (family,) if family == unit or family.startswith(f"{unit}.") else ()
