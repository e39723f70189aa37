"""Concatenation without copies: its parts are written where the whole will lie.

``concat(f(x), g(y))`` in layouts whose channels may be cut there: f makes the whole tensor and fills its own channels, g fills
its own in place. So they do through concatenations of concatenations; where element-wise sub-graphs read a part on its
own, as in a densely connected network, they read it out of the whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.cpu.pointwise import concat_inputs
from tvm_passes.cpu.subgraph import KernelSubgraph, Param, read_subgraph
from tvm_passes.cpu.view import Slice
from tvm_passes.ir import Var, leaves, main_bindings
from tvm_passes.layout import block_size

WRITERS = frozenset(
    f"nn.{name}" for name in ("conv2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")
) | {"concat", "elementwise", "lrn"}
"""Anchors whose kernels store their result through a view."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a tensor of `main` lies that has no memory of its own."""

    home: Var
    """The concatenation that has."""
    slice: Slice


Writes = Callable[[relax.Function], bool]
Reads = Callable[[relax.Function, int], bool]


@dataclass(frozen=True)
class _Use:
    """One reading of a variable of `main`."""

    reader: Var | None
    """What the reader makes; None for the caller of `main`."""
    index: int


class _Finder:
    def __init__(self, module: tvm.IRModule, writes: Writes, reads: Reads) -> None:
        self.module = module
        self.writes = writes
        self.reads = reads
        self.bindings = main_bindings(module["main"])
        self.calls = {b.var: b.value for b in self.bindings if self._calls_function(b.value)}
        self.uses: dict[Var, list[_Use]] = defaultdict(list)
        for binding in self.bindings:
            for index, leaf in enumerate(leaves(binding.value)):
                self._use(leaf, binding.var, index)
        for leaf in leaves(module["main"].body.body):
            self._use(leaf, None, 0)

    def _use(self, leaf: relax.Expr, reader: Var | None, index: int) -> None:
        if isinstance(leaf, Var):
            self.uses[leaf].append(_Use(reader, index))

    def _calls_function(self, value: relax.Expr) -> bool:
        called = value.op if isinstance(value, Call) else None
        return isinstance(called, GlobalVar) and isinstance(self.module[called], relax.Function)

    def _function(self, var: Var | None) -> relax.Function | None:
        call = self.calls.get(var)
        return self.module[call.op] if call is not None else None

    def find(self) -> dict[Var, Placement]:
        """The outermost concatenations come first: their parts may be concatenations."""
        placed: dict[Var, Placement] = {}
        for binding in reversed(self.bindings):
            function = self._function(binding.var)
            joined = read_concat(function) if function is not None else None
            if joined is None:
                continue
            outer = placed.get(binding.var)
            home = outer.home if outer else binding.var
            whole = outer.slice if outer else Slice(shape=joined.shape, first=0)
            for part, first in joined.parts_taken_once:
                argument = binding.value.args[part.index]
                starts_block = (whole.first + first) % (block_size(joined.layout) or 1) == 0
                if starts_block and argument not in placed and self._moves(argument, binding.var):
                    place = Slice(shape=whole.shape, first=whole.first + first)
                    placed[argument] = Placement(home=home, slice=place)
        return placed

    def _moves(self, argument: relax.Expr, concat: Var) -> bool:
        """Whether a part can be made where `concat` wants it, and all others that read it can read it there."""
        function = self._function(argument) if isinstance(argument, Var) else None
        if function is None or not self.writes(function):
            return False
        others = [use for use in self.uses[argument] if use.reader != concat]
        return len(self.uses[argument]) == len(others) + 1 and all(map(self._follows, others))

    def _follows(self, use: _Use) -> bool:
        function = self._function(use.reader)
        return function is not None and self.reads(function, use.index)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A sub-graph that only concatenates channels of images that all lie in the layout of the whole."""

    shape: tuple[int, ...]
    layout: str
    parts: Sequence[tuple[Param, int]]
    """With the channel at which each starts."""

    @property
    def parts_taken_once(self) -> Iterator[tuple[Param, int]]:
        """The others would have to be in several places."""
        times = Counter(part for part, _ in self.parts)
        return ((part, first) for part, first in self.parts if times[part] == 1)


def read_concat(function: relax.Function) -> Joined | None:
    """What a stage-2 function concatenates; None if it does anything else."""
    if "layoutsel.anchor" not in function.attrs or function.attrs["layoutsel.anchor"] != "concat":
        return None
    subgraph = read_subgraph(function)
    if subgraph is None or len(subgraph.nodes) != 1 or len(subgraph.nodes[0].shape) != 4:
        return None
    layout = subgraph.out_layouts[0]
    inputs = concat_inputs(subgraph.nodes[0])
    if not inputs or any(part.layout != layout for part in inputs):
        return None
    return Joined(shape=subgraph.nodes[0].shape, layout=layout, parts=tuple(_with_starts(inputs)))


def _with_starts(inputs: Sequence[Param]) -> Iterator[tuple[Param, int]]:
    first = 0
    for part in inputs:
        yield part, first
        first += part.shape[1]


def find_placements(module: tvm.IRModule, writes: Writes, reads: Reads) -> Mapping[Var, Placement]:
    """The variables of `main` (stage 3) that are made inside of a concatenation.

    Parameters
    ----------
    writes
        Whether the kernel of a function can store its result into a larger tensor.
    reads
        Whether it can read the activation of that number out of one.
    """
    return _Finder(module, writes, reads).find()


def reads_slices(subgraph: KernelSubgraph) -> bool:
    """Whether a kernel of the CPU reads its activations through views alone."""
    return subgraph.anchor == "elementwise"
