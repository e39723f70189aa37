"""Stage 2 to 3: merge neighbouring sub-graphs of a BYOC unit into one external function."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.backends import codegens
from tvm_passes.ir import Constant, Expr, ModulePass, Var, leaves, substitute
from tvm_passes.main_rewriter import MainRewriter


class _Quotient:
    """Graph of the bindings of `main` under contraction; it stays acyclic."""

    def __init__(self, reads: Sequence[set[int]]) -> None:
        self.root = list(range(len(reads)))
        self.members = {node: [node] for node in self.root}
        self.predecessors = {node: set(read) for node, read in enumerate(reads)}
        self.successors: dict[int, set[int]] = {node: set() for node in self.root}
        for node, read in enumerate(reads):
            for producer in read:
                self.successors[producer].add(node)

    def find(self, node: int) -> int:
        """Return the contracted node that contains `node`."""
        return self.root[node]

    def _detour(self, source: int, target: int) -> bool:
        """Return whether a path from `source` to `target` passes through a third node."""
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
        """Contract two nodes unless that would close a cycle; returns whether they are one."""
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
        """Return the members of contracted nodes in topological order, earliest member first."""
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


def _unit_of(function: tvm.ir.BaseFunc) -> str:
    """Return the unit of a function; empty without a decision."""
    attrs = function.attrs
    return str(attrs["layoutsel.unit"]) if attrs and "layoutsel.unit" in attrs else ""


def _unit(module: tvm.IRModule, value: Expr) -> str:
    """Return the unit that runs a value of `main`; empty for a value that calls no function."""
    if not isinstance(value, Call) or not isinstance(value.op, GlobalVar):
        return ""
    return _unit_of(module[value.op])


def _partitions(
    module: tvm.IRModule,
    bindings: Sequence[relax.VarBinding],
    codegen: Mapping[str, str],
    apart: Collection[str],
) -> list[list[int]]:
    """Return the positions of the bindings, grouped by partition, in a topological order."""
    position = {binding.var: index for index, binding in enumerate(bindings)}
    reads = [
        {position[leaf] for leaf in leaves(binding.value) if leaf in position}
        for binding in bindings
    ]
    units: list[str] = []
    for binding in bindings:
        value = binding.value
        is_field = isinstance(value, relax.TupleGetItem) and value.tuple_value in position
        # A field of a tuple belongs to the unit that computes the tuple.
        units.append(units[position[value.tuple_value]] if is_field else _unit(module, value))
    # A partition may neither span a call of a device nor a wait for one: number the calls by both.
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
    """Return the distinct values in order."""
    return list(dict.fromkeys(values))


def _partition_function(
    module: tvm.IRModule, members: Sequence[relax.VarBinding], results: Sequence[Var], name: str
) -> tuple[relax.Function, list[Expr]]:
    """Make the external function of `members`; returns it with its arguments in the old `main`."""
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
    """Return the members' variables that other bindings or the result of `main` read."""
    inside = {binding.var for binding in members}
    read = {
        leaf for binding in bindings if binding.var not in inside for leaf in leaves(binding.value)
    }
    read.update(leaves(output))
    return [binding.var for binding in members if binding.var in read]


class _Merging(MainRewriter):
    def __init__(
        self,
        module: tvm.IRModule,
        codegen: Mapping[str, str],
        apart: Collection[str],
        prefix: str,
    ) -> None:
        super().__init__(module, keep=lambda function: _unit_of(function) not in codegen)
        self.prefix = prefix
        self.codegen = codegen
        self.apart = apart
        self.count = 0
        """Number of partitions so far."""

    def body(self, bindings: Sequence[relax.VarBinding]) -> None:
        for indices in _partitions(self.module, bindings, self.codegen, self.apart):
            members = [bindings[index] for index in indices]
            unit = _unit(self.module, members[0].value)
            if unit in self.codegen:
                results = _results(members, bindings, self.main.body.body)
                self._bind(self._partition(members, results, self.codegen[unit]), results)
            else:
                (binding,) = members
                self.mapping[binding.var] = self.copy(binding)

    def _partition(
        self, members: Sequence[relax.VarBinding], results: Sequence[Var], codegen: str
    ) -> Var:
        """Emit the call of a new external function; returns its value."""
        name = f"{self.prefix}{self.count}"
        self.count += 1
        function, outside = _partition_function(self.module, members, results, name)
        function = function.with_attrs({"Codegen": codegen, "global_symbol": name})
        callee = self.builder.add_func(function, name)
        return self.builder.emit(Call(callee, [self.renewed(value) for value in outside]))

    def _bind(self, value: Var, results: Sequence[Var]) -> None:
        if len(results) == 1:
            self.mapping[results[0]] = value
            return
        for index, result in enumerate(results):
            self.mapping[result] = self.builder.emit(relax.TupleGetItem(value, index))


@tvm.transform.module_pass(opt_level=0, name="MergePartitions")
@dataclass(frozen=True)
class MergePartitions(ModulePass):
    """Merge neighbouring sub-graphs of one BYOC unit into a function with attribute ``Codegen``.

    ``s2(s1(s0(x)))``, s0 and s1 on oneDNN → ``s2(p0(x))``, where p0 has s0 and s1 as local
    functions.

    *Requires* stage 2. *Ensures* that partitions are convex (no path leaves one and returns), so
    that each is one call. Values that cross between partitions are variables of `main`.
    """

    codegen: Mapping[str, str] = field(default_factory=codegens)
    """Name of the external code generation of each unit that takes whole partitions."""

    apart: Collection[str] = ()
    """Units whose calls no partition spans, such as the units of devices.

    A partition is one call, which waits for all of its inputs. If it spanned a call of such a unit,
    its first sub-graphs would wait for that call. For the same reason a partition never joins a
    sub-graph that reads a result of such a unit with an earlier one.
    """

    prefix: str = "p"
    """Prefix of the partitions' names, followed by an index.

    Modules that are joined later need different prefixes.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Merge the partitions of `module`."""
        return _Merging(module, self.codegen, self.apart, self.prefix).run()
