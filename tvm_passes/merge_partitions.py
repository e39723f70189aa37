"""Stage 2 → 3: merge neighbouring sub-graphs of a BYOC unit into one external function."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    Var,
    leaves,
    main_bindings,
    rebuilding,
    substitute,
)


class _Quotient:
    """Nodes of `main` under contraction: knows whether contracting two of them would close a cycle."""

    def __init__(self, reads: Sequence[set[int]]) -> None:
        self.root = list(range(len(reads)))
        self.members = {node: [node] for node in self.root}
        self.predecessors = {node: set(read) for node, read in enumerate(reads)}
        self.successors: dict[int, set[int]] = {node: set() for node in self.root}
        for node, read in enumerate(reads):
            for producer in read:
                self.successors[producer].add(node)

    def find(self, node: int) -> int:
        """The contracted node that holds `node`."""
        return self.root[node]

    def _detour(self, source: int, target: int) -> bool:
        """Whether a path from `source` to `target` passes through a third node."""
        stack = [node for node in self.successors[source] if node != target]
        seen = set(stack)
        while stack:
            node = stack.pop()
            if node == target:
                return True
            fresh = self.successors[node] - seen
            seen |= fresh
            stack.extend(fresh)
        return False

    def contract(self, first: int, second: int) -> bool:
        """Contract two nodes unless that would close a cycle; tell whether it was done."""
        first, second = self.find(first), self.find(second)
        if first == second:
            return True
        if self._detour(first, second) or self._detour(second, first):
            return False
        for node in self.members[second]:
            self.root[node] = first
        self.members[first] += self.members.pop(second)
        for here, there in (
            (self.predecessors, self.successors),
            (self.successors, self.predecessors),
        ):
            for node in here.pop(second):
                there[node].discard(second)
                there[node].add(first)
                here[first].add(node)
            here[first].discard(first)
        return True

    def order(self) -> list[list[int]]:
        """The contracted nodes in topological order, earliest member first; members ascending."""
        waiting = {node: len(producers) for node, producers in self.predecessors.items()}
        ready = [(min(self.members[node]), node) for node, count in waiting.items() if not count]
        heapq.heapify(ready)
        ordered = []
        while ready:
            _, node = heapq.heappop(ready)
            ordered.append(sorted(self.members[node]))
            for consumer in self.successors[node]:
                waiting[consumer] -= 1
                if not waiting[consumer]:
                    heapq.heappush(ready, (min(self.members[consumer]), consumer))
        return ordered


def _unit(module: tvm.IRModule, value: Expr) -> str | None:
    if not isinstance(value, Call) or not isinstance(value.op, GlobalVar):
        return None
    attrs = module[value.op].attrs
    return str(attrs["layoutsel.unit"]) if attrs and "layoutsel.unit" in attrs else None


def _partitions(
    module: tvm.IRModule,
    bindings: Sequence[relax.VarBinding],
    codegen: Mapping[str, str],
    apart: Collection[str],
) -> list[list[int]]:
    position = {binding.var: index for index, binding in enumerate(bindings)}
    reads = [
        {position[leaf] for leaf in leaves(binding.value) if leaf in position}
        for binding in bindings
    ]
    units: list[str | None] = []
    for binding in bindings:
        value = binding.value
        field = isinstance(value, relax.TupleGetItem) and value.tuple_value in position
        # A result of several belongs to whoever makes it.
        units.append(units[position[value.tuple_value]] if field else _unit(module, value))
    # What is called before a device, behind it, and behind a wait for it.
    stops = (
        unit in apart or any(units[producer] in apart for producer in read)
        for unit, read in zip(units, reads, strict=True)
    )
    called = list(accumulate(stops))
    quotient = _Quotient(reads)
    for node, read in enumerate(reads):
        if units[node] in codegen:
            for producer in sorted(read, reverse=True):
                if units[producer] == units[node] and called[producer] == called[node]:
                    quotient.contract(producer, node)
    return quotient.order()


def _ordered(values: Iterable[Expr]) -> list[Expr]:
    return list(dict.fromkeys(values))


def _partition_function(
    module: tvm.IRModule, members: Sequence[relax.VarBinding], results: Sequence[Var], name: str
) -> tuple[relax.Function, list[Expr]]:
    """The external function of `members`, and what it is called with."""
    inside = {binding.var for binding in members}
    outside = _ordered(
        leaf
        for binding in members
        for leaf in leaves(binding.value)
        if isinstance(leaf, Constant) or (isinstance(leaf, Var) and leaf not in inside)
    )
    outside.sort(key=lambda leaf: isinstance(leaf, Constant))
    params = [relax.Var(f"p{index}", leaf.ty) for index, leaf in enumerate(outside)]
    mapping: dict[Expr, Expr] = dict(zip(outside, params, strict=True))
    builder = relax.BlockBuilder()
    with builder.function(name, params):
        with builder.dataflow():
            for binding in members:
                sole = len(results) == 1 and binding.var.same_as(results[0])
                emit = builder.emit_output if sole else builder.emit
                if isinstance(binding.value, relax.TupleGetItem):
                    mapping[binding.var] = emit(substitute(binding.value, mapping.get))
                    continue
                function = relax.utils.copy_with_new_vars(module[binding.value.op])
                local = builder.emit(function, name_hint=binding.value.op.name_hint)
                arguments = [substitute(argument, mapping.get) for argument in binding.value.args]
                mapping[binding.var] = emit(Call(local, arguments))
            output: Expr = mapping[results[0]]
            if len(results) > 1:
                output = builder.emit_output(relax.Tuple([mapping[result] for result in results]))
        builder.emit_func_output(output)
    return builder.get()[name], outside


def _results(
    members: Sequence[relax.VarBinding], bindings: Sequence[relax.VarBinding], output: Expr
) -> list[Var]:
    inside = {binding.var for binding in members}
    read = {
        leaf for binding in bindings if binding.var not in inside for leaf in leaves(binding.value)
    }
    read.update(leaves(output))
    return [binding.var for binding in members if binding.var in read]


@tvm.transform.module_pass(opt_level=0, name="MergePartitions")
class MergePartitions(ModulePass):
    """Merge what neighbours and runs on one BYOC unit into a function with attribute ``Codegen``.

    ``s2(s1(s0(x)))``, s0 and s1 on oneDNN → ``s2(p0(x))``, where p0 holds s0 and s1 as local functions.

    *Requires* stage 2. *Ensures* that partitions are convex (no path leaves one and comes back), so that each
    is one call; what crosses between partitions are `main`'s variables.

    Parameters
    ----------
    codegen
        The units that take whole partitions, and the name of each one's external code generation.
    apart
        Units that keep partitions apart: what is called before and what behind one is not merged, or it would wait for more
        than it reads; nor is what waits for one with what does not.
    """

    def __init__(
        self, codegen: Mapping[str, str] | None = None, apart: Collection[str] = ()
    ) -> None:
        self.codegen = {"onednn": "layoutsel_onednn"} if codegen is None else codegen
        self.apart = apart

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Merge the partitions of `module`."""
        main = module["main"]
        bindings = main_bindings(main)
        builder = rebuilding(module, lambda _name, function: not self._is_external(function))
        mapping: dict[Expr, Expr] = {}
        count = 0
        with builder.function("main", main.params, attrs=dict(main.attrs) if main.attrs else None):
            with builder.dataflow():
                for indices in _partitions(module, bindings, self.codegen, self.apart):
                    members = [bindings[index] for index in indices]
                    unit = _unit(module, members[0].value)
                    if unit is None or unit not in self.codegen:
                        (binding,) = members
                        value = substitute(binding.value, mapping.get)
                        mapping[binding.var] = builder.emit(value)
                        continue
                    results = _results(members, bindings, main.body.body)
                    name = f"p{count}"
                    count += 1
                    function, outside = _partition_function(module, members, results, name)
                    function = function.with_attrs(
                        {"Codegen": self.codegen[unit], "global_symbol": name}
                    )
                    callee = builder.add_func(function, name)
                    _bind(
                        builder,
                        mapping,
                        Call(callee, [mapping.get(v, v) for v in outside]),
                        results,
                    )
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        return builder.finalize()

    def _is_external(self, function: tvm.ir.BaseFunc) -> bool:
        """Whether it becomes part of a partition."""
        return bool(function.attrs and str(function.attrs.get("layoutsel.unit")) in self.codegen)


def _bind(
    builder: relax.BlockBuilder, mapping: dict[Expr, Expr], call: Call, results: Sequence[Var]
) -> None:
    value = builder.emit(call)
    if len(results) == 1:
        mapping[results[0]] = value
        return
    for index, result in enumerate(results):
        mapping[result] = builder.emit(relax.TupleGetItem(value, index))
