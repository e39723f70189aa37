"""Stage 0 → 1: break `main` into convex sub-graphs, each a function of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

import tvm
from tvm import relax
from tvm.ir import Call

from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    Var,
    is_tensor,
    leaves,
    main_bindings,
    op_name,
    rebuilding,
    static_shape,
    substitute,
)
from tvm_passes.lrn import match_lrn
from tvm_passes.operators import NARROW_FLOATS, Role, role
from tvm_passes.shuffle import OPERATORS, shuffle_groups

INLINE_CONSTANT_ELEMENTS = 16
"""Constants up to this size are part of a sub-graph's identity; larger ones become weight parameters."""

MAX_OPERATORS = 12
"""Operators of a sub-graph at most; oneDNN accepts 32 post-ops, registers run out earlier."""


@dataclass(eq=False)
class _Node:
    """One operator call of `main`."""

    position: int
    binding: relax.VarBinding
    operator: str
    consumers: list[_Node] = field(default_factory=list)
    escapes: bool = False
    """Read by something that is no operator call: the function's result, a tuple."""
    group: int | None = None

    @property
    def var(self) -> Var:
        return self.binding.var

    @property
    def value(self) -> Call:
        return self.binding.value

    @property
    def role(self) -> Role:
        """Role of the operator; casts from and to narrow floats only move elements, as no kernel computes in these."""
        if self.operator == "astype":
            ends = {str(end.ty.dtype) for end in (self.value.args[0], self.var)}
            if ends & NARROW_FLOATS:
                return Role.MOVEMENT
        return role(self.operator)


def _read_nodes(function: relax.Function) -> tuple[list[_Node], list[relax.VarBinding]]:
    bindings = main_bindings(function)
    nodes: list[_Node] = []
    by_var: dict[Var, _Node] = {}
    for position, binding in enumerate(bindings):
        value = binding.value
        read = [by_var[leaf] for leaf in leaves(value) if leaf in by_var]
        if isinstance(value, Call):
            node = _Node(position, binding, op_name(value))
            for producer in dict.fromkeys(read):
                producer.consumers.append(node)
            nodes.append(node)
            by_var[binding.var] = node
        else:
            for producer in read:
                producer.escapes = True
    for leaf in leaves(function.body.body):
        if leaf in by_var:
            by_var[leaf].escapes = True
    return nodes, bindings


def _shape(node: _Node) -> tuple[int, ...] | None:
    return static_shape(node.var.ty) if is_tensor(node.var) else None


def _extension(tail: _Node, room: int) -> list[_Node]:
    """The element-wise nodes between `tail` and its immediate post-dominator, that one included.

    Empty where anything on the way does not fuse: another shape, another role, a value seen outside.
    """
    shape = _shape(tail)
    if tail.escapes or shape is None or not tail.consumers:
        return []
    region: list[_Node] = []
    frontier = {node.position: node for node in tail.consumers}
    while frontier:
        node = frontier.pop(min(frontier))
        if (
            node.role is not Role.ELEMENTWISE
            or node.group is not None
            or _shape(node) != shape
            or len(region) == room
        ):
            return []
        region.append(node)
        if not frontier:
            return region
        if node.escapes or not node.consumers:
            return []
        frontier.update((consumer.position, consumer) for consumer in node.consumers)
    return []


def _grow(anchor: _Node, most: int) -> list[_Node]:
    group = [anchor]
    while len(group) < most:
        region = _extension(group[-1], most - len(group))
        if not region:
            break
        for node in region:
            node.group = anchor.position
        group.extend(region)
    while len(group) > 1 and _is_prologue(group[-1]):
        group.pop().group = None
    for node in _shuffle_behind(group):
        node.group = anchor.position
        group.append(node)
    return group


def _shuffle_behind(group: Sequence[_Node]) -> list[_Node]:
    """The shuffle of a grouped convolution's channels, by these groups: its kernel can write them where they go."""
    anchor, tail = group[0], group[-1]
    if anchor.operator != "nn.conv2d" or int(anchor.value.attrs.groups) == 1:
        return []
    behind: list[_Node] = []
    for _ in OPERATORS:
        last = behind[-1] if behind else tail
        if last.escapes or len(last.consumers) != 1 or last.consumers[0].group is not None:
            return []
        behind.append(last.consumers[0])
    groups = shuffle_groups([node.value for node in behind])
    is_depthwise = static_shape(anchor.value.args[1].ty)[1] == 1
    return behind if groups == int(anchor.value.attrs.groups) and not is_depthwise else []


def _is_prologue(node: _Node) -> bool:
    """Whether every group that reads a value computes it for itself: integers cross between them, not numbers."""
    return node.operator == "dequantize" and not node.escapes and bool(node.consumers)


def _with_prologues(ungrouped: Sequence[_Node], members: Sequence[_Node]) -> tuple[_Node, ...]:
    """`members` of a group behind the ungrouped values that they read."""
    inside = set(members)
    return (*(node for node in ungrouped if inside & set(node.consumers)), *members)


def _chain_of_movement(start: _Node) -> list[_Node]:
    chain = [start]
    while not chain[-1].escapes and len(chain[-1].consumers) == 1:
        following = chain[-1].consumers[0]
        if following.role is not Role.MOVEMENT or following.group is not None:
            break
        following.group = start.position
        chain.append(following)
    return chain


@dataclass(frozen=True)
class _Group:
    nodes: tuple[_Node, ...]
    anchor: str


def _form_groups(nodes: Sequence[_Node], most: int) -> list[_Group]:
    groups: list[_Group] = []
    for node in nodes:
        lrn = match_lrn(node) if node.group is None else None
        if lrn:
            for member in lrn:
                member.group = node.position
            groups.append(_Group(tuple(lrn), "lrn"))
    # Last anchor first: of the branches that a residual add joins, the later one can take the add without
    # waiting for a branch that is computed after it.
    for node in reversed(nodes):
        if node.group is None and node.role is Role.ANCHOR:
            node.group = node.position
            groups.append(_Group(tuple(_grow(node, most)), node.operator))
    for node in nodes:
        if node.group is not None or _is_prologue(node):
            continue
        node.group = node.position
        elementwise = node.role is Role.ELEMENTWISE
        members = _grow(node, most) if elementwise else _chain_of_movement(node)
        groups.append(_Group(tuple(members), "elementwise" if elementwise else "movement"))
    ungrouped = [node for node in nodes if node.group is None]
    groups = [replace(group, nodes=_with_prologues(ungrouped, group.nodes)) for group in groups]
    return sorted(groups, key=lambda group: group.nodes[-1].position)


def _is_weight(expr: Expr) -> bool:
    return isinstance(expr, Constant) and prod(static_shape(expr.ty)) > INLINE_CONSTANT_ELEMENTS


def _outside_reads(group: _Group) -> tuple[list[Var], list[Constant]]:
    """Activations and weights that a group reads, each once, in order of first use."""
    inside = {node.var for node in group.nodes}
    activations: dict[Var, None] = {}
    weights: dict[Constant, None] = {}
    for node in group.nodes:
        for leaf in leaves(node.value):
            if isinstance(leaf, Var) and leaf not in inside:
                activations[leaf] = None
            elif _is_weight(leaf):
                weights[leaf] = None
    return list(activations), list(weights)


def _subgraph_function(
    group: _Group, subgraph: str, activations: Sequence[Var], weights: Sequence[Constant]
) -> relax.Function:
    outside = [*activations, *weights]
    names = [f"x{i}" for i in range(len(activations))] + [f"w{i}" for i in range(len(weights))]
    params = [relax.Var(name, expr.ty) for name, expr in zip(names, outside, strict=True)]
    mapping: dict[Expr, Expr] = dict(zip(outside, params, strict=True))
    builder = relax.BlockBuilder()
    with builder.function("subgraph", params):
        with builder.dataflow():
            for node in group.nodes[:-1]:
                mapping[node.var] = builder.emit(substitute(node.value, mapping.get), node.var.name)
            last = group.nodes[-1]
            result = builder.emit_output(substitute(last.value, mapping.get), last.var.name)
        builder.emit_func_output(result)
    function = builder.get()["subgraph"].without_attr("global_symbol")
    return function.with_attrs(
        {
            "layoutsel.subgraph": subgraph,
            "layoutsel.anchor": group.anchor,
            "layoutsel.num_activations": len(activations),
        }
    )


@tvm.transform.module_pass(opt_level=0, name="PartitionSubgraphs")
class PartitionSubgraphs(ModulePass):
    """Turn `main` into calls of sub-graph functions with stable ids ``s0``, ``s1`` and so on.

    ``relu(add(conv2d(x, w), b))`` → ``s0(x, w, b)``. What quantises a result belongs to the sub-graph that computes
    it, what dequantises an operand to every one that reads it.

    *Requires* a straight-line `main` with static shapes. *Ensures* that every operator call of `main` is in exactly
    one sub-graph, that sub-graphs are convex, and that a sub-graph has one result.

    Parameters
    ----------
    max_operators
        Operators that an anchor and what is fused behind it may be; 1 fuses nothing.
    """

    def __init__(self, max_operators: int = MAX_OPERATORS) -> None:
        self.max_operators = max_operators

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Partition `main` of `module`; a module that is partitioned already comes back as it is."""
        main = module["main"]
        if any("layoutsel.subgraph" in f.attrs for f in module.functions.values() if f.attrs):
            return module
        nodes, bindings = _read_nodes(main)
        groups = {
            group.nodes[-1].position: group for group in _form_groups(nodes, self.max_operators)
        }
        inside = {node.position for node in nodes}
        builder = rebuilding(module)
        mapping: dict[Expr, Expr] = {}
        with builder.function("main", main.params, attrs=dict(main.attrs) if main.attrs else None):
            with builder.dataflow():
                for position, binding in enumerate(bindings):
                    if position in groups:
                        group = groups[position]
                        activations, weights = _outside_reads(group)
                        subgraph = f"s{list(groups).index(position)}"
                        function = _subgraph_function(group, subgraph, activations, weights)
                        callee = builder.add_func(function, f"subgraph_{subgraph}")
                        arguments = [mapping.get(read, read) for read in (*activations, *weights)]
                        mapping[binding.var] = builder.emit(Call(callee, arguments))
                    elif position not in inside:
                        mapping[binding.var] = builder.emit(substitute(binding.value, mapping.get))
                result = builder.emit_output(substitute(main.body.body, mapping.get))
            builder.emit_func_output(result)
        return builder.finalize()
