"""Concatenation without copies: its parts are written to their position in the result.

In ``concat(f(x), g(y))``, f allocates the whole tensor and fills its own channels, and g fills its
own in place. This requires layouts whose channels can be divided at the boundary. It also applies
to concatenations of concatenations. Element-wise sub-graphs that read one part separately, as in a
densely connected network, read it from the whole tensor.
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
"""Anchors whose kernels can store their result into a larger tensor."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Position of a tensor of `main` that has no memory of its own."""

    home: Var
    """Concatenation whose result has the memory."""
    slice: Slice
    """Channels of that result."""


Writes = Callable[[relax.Function], bool]
"""Returns whether the kernel of a function can store its result into a larger tensor."""
Reads = Callable[[relax.Function, int], bool]
"""Returns whether the kernel of a function can read an activation, by index, from a larger tensor.
"""


@dataclass(frozen=True)
class _Use:
    """One use of a variable of `main`."""

    reader: Var | None
    """Result of the consumer; None for the caller of `main`."""
    index: int
    """Index of the operand."""


class _Finder:
    """Search for tensors that can be placed in a concatenation."""

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
        """Find the placements.

        Outer concatenations come first, because their parts may be concatenations.
        """
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
        """Return whether a part can be written into `concat`, and all its consumers can read it."""
        function = self._function(argument) if isinstance(argument, Var) else None
        if function is None or not self.writes(function):
            return False
        others = [use for use in self.uses[argument] if use.reader != concat]
        return len(self.uses[argument]) == len(others) + 1 and all(map(self._follows, others))

    def _follows(self, use: _Use) -> bool:
        """Return whether a consumer can read its operand from a larger tensor."""
        function = self._function(use.reader)
        return function is not None and self.reads(function, use.index)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A sub-graph that only concatenates channels of images in the layout of the result."""

    shape: tuple[int, ...]
    """Logical shape of the result."""
    layout: str
    """Layout of the result and of all parts."""
    parts: Sequence[tuple[Param, int]]
    """Parts, each with its first channel in the result."""

    @property
    def parts_taken_once(self) -> Iterator[tuple[Param, int]]:
        """Parts that occur once; the others would need several positions."""
        times = Counter(part for part, _ in self.parts)
        return ((part, first) for part, first in self.parts if times[part] == 1)


def read_concat(function: relax.Function) -> Joined | None:
    """Return the concatenation that a stage-2 function consists of, or None."""
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
    """Yield each input with its first channel in the result."""
    first = 0
    for part in inputs:
        yield part, first
        first += part.shape[1]


def find_placements(module: tvm.IRModule, writes: Writes, reads: Reads) -> Mapping[Var, Placement]:
    """Find the variables of `main` (stage 3) whose memory is part of a concatenation.

    Parameters
    ----------
    writes
        Returns whether the kernel of a function can store its result into a larger tensor.
    reads
        Returns whether the kernel of a function can read an activation, by index, from a larger
        tensor.
    """
    return _Finder(module, writes, reads).find()


def reads_slices(subgraph: KernelSubgraph) -> bool:
    """Return whether a kernel of the CPU reads all its activations through views."""
    return subgraph.anchor == "elementwise"
