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
"""Plans the kernel of a sub-graph, or returns the operator that no kernel supports there."""


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
    """Offer no layout: the algorithm is no candidate, but a plan edited by hand may name it."""
    return ()


def packed_filters(context: CandidateContext, kernel: tuple[int, int]) -> tuple[str, ...]:
    """Offer the packed layout for an f32 convolution whose filters have the size `kernel`."""
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
    """Returns the layouts in which it is a candidate; the unit then checks the legality of each."""
    plan: PlanKernel | None = None
    """Plans its kernels on units whose code TVM generates; None for units with their own code."""
    recorded: bool = False
    """True if its code is the schedule of a tuning record instead of a planned kernel."""
    skips: int = 0
    """Number of implementations that it passes over on a unit whose library ranks them."""
    packed_size: float = 1.0
    """Size of packed weights relative to the plain ones."""
    speedup: float = 1.0
    """Arithmetic rate that the roofline assumes, in every precision; 1 is that of direct f32 code.

    Unused for the default algorithm, whose rate is that of the precision.
    """
    family: str = ""
    """Family of kernels, such as ``cpu.winograd``: measurements of one depend on the code of all.

    If empty, unit and algorithm form their own family. See :mod:`layoutsel.cost.scopes`.
    """
    code: tuple[str, ...] = ()
    """Functions through which its code is reached, each ``module:name``; that of `plan` if empty.

    Measurements depend on a digest of this code. The name ``*`` denotes a whole module.
    """
    encoding: str = ""
    """Word for it in the features of cost models; if empty, its name.

    A trained model that lacks the word encodes it as "other", and is less certain.
    """
    has_telling_hints: bool = False
    """True if the hints of its kernels distinguish it, so that cost models need no word for it."""
    rank: int = 100
    """Position among the built-in algorithms: candidates are offered in ascending order."""

    @property
    def is_default(self) -> bool:
        """True for the algorithm of decisions that name none."""
        return self.name == DIRECT

    @property
    def word(self) -> str:
        """Word for it in the features of cost models."""
        return self.encoding or self.name

    @property
    def roots(self) -> tuple[str, ...]:
        """Functions through which its code is reached, each ``module:name``."""
        if self.code or self.plan is None:
            return self.code
        plan = getattr(self.plan, "func", self.plan)  # of a functools.partial
        return (f"{plan.__module__}:{plan.__qualname__}",)

    def families(self, unit: str) -> tuple[str, ...]:
        """Families of kernels that it adds to `unit`; none for the default algorithm."""
        if self.is_default:
            return ()
        family = self.family or f"{unit}.{self.name}"
        return (family,) if family == unit or family.startswith(f"{unit}.") else ()
