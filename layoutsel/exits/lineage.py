"""Lineage of a model's outputs: the operators and inputs that each of them depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvm import relax
from tvm.ir import Call, IRModule

from layoutsel.model.work import read_operation
from tvm_passes.ir import leaves, main_bindings, results


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Everything that one output depends on."""

    operators: frozenset[int]
    """Positions of the operators in the model."""
    inputs: frozenset[int]
    """Positions of the inputs of the model."""
    flops: int
    """Arithmetic operations of `operators`."""

    def shares(self, other: Lineage) -> bool:
        """Tell whether two outputs have an operator or an input in common."""
        return bool(self.operators & other.operators or self.inputs & other.inputs)


def lineages(module: IRModule) -> tuple[Lineage, ...]:
    """Find the lineage of each output of an imported model, in their order.

    Raises
    ------
    UnsupportedModel
        If a shape is not static.
    """
    main = module["main"]
    inputs = {param: position for position, param in enumerate(main.params)}
    bindings = main_bindings(main)
    producers = {binding.var: position for position, binding in enumerate(bindings)}
    reads = [list(leaves(binding.value)) for binding in bindings]
    flops = [
        read_operation(binding.value, binding.var.ty).flops
        if isinstance(binding.value, Call)
        else 0
        for binding in bindings
    ]
    found = []
    for output in results(main):
        operators, read = _ancestors(output, producers, reads, inputs)
        work = sum(flops[position] for position in operators)
        found.append(Lineage(operators=operators, inputs=read, flops=work))
    return tuple(found)


def _ancestors(
    output: relax.Expr,
    producers: Mapping[relax.Expr, int],
    reads: Sequence[Sequence[relax.Expr]],
    inputs: Mapping[relax.Expr, int],
) -> tuple[frozenset[int], frozenset[int]]:
    """Find the positions of all operators and inputs that `output` depends on."""
    operators: set[int] = set()
    found: set[int] = set()
    waiting = [output]
    while waiting:
        var = waiting.pop()
        if var in inputs:
            found.add(inputs[var])
        elif var in producers and producers[var] not in operators:
            operators.add(producers[var])
            waiting += reads[producers[var]]
    return frozenset(operators), frozenset(found)
