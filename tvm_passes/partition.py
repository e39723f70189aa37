"""Stage 0 to 1: partition `main` into convex sub-graphs, each of them a function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import tvm
from tvm import relax
from tvm.ir import Call

from tvm_passes.attention import ANCHOR, match_attention
from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    Var,
    is_tensor,
    leaves,
    main_bindings,
    op_name,
    static_shape,
    substitute,
)
from tvm_passes.lrn import match_lrn
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.operators import NARROW_FLOATS, Role, role
from tvm_passes.shuffle import OPERATORS, shuffle_groups

INLINE_CONSTANT_ELEMENTS = 16
"""Maximum number of elements of a constant that stays inside the function of a sub-graph.

Larger constants become weight parameters.
"""

MAX_OPERATORS = 12
"""Maximum number of operators of a sub-graph.

oneDNN accepts up to 32 post-ops, but its kernels run out of registers earlier.
"""


@dataclass(eq=False)
class _Node:
    """One operator call of `main`."""

    position: int
    """Position of the binding in `main`."""
    binding: relax.VarBinding
    """Binding of the call."""
    operator: str
    """Name of the operator."""
    consumers: list[_Node] = field(default_factory=list)
    """Calls that read the value."""
    escapes: bool = False
    """True if a tuple or the function's result reads the value."""
    group: int | None = None
    """Position of the anchor or first node of the group; None if the node is in no group."""

    @property
    def var(self) -> Var:
        return self.binding.var

    @property
    def value(self) -> Call:
        return self.binding.value

    @property
    def role(self) -> Role:
        """Role of the operator.

        A cast from or to narrow floats only moves elements, as no kernel computes in these types.
        """
        if self.operator == "astype":
            ends = {str(end.ty.dtype) for end in (self.value.args[0], self.var)}
            if ends & NARROW_FLOATS:
                return Role.MOVEMENT
        return role(self.operator)


def _read_nodes(function: relax.Function) -> list[_Node]:
    """Return the operator calls of a function, in order, with their consumers."""
    nodes: list[_Node] = []
    by_var: dict[Var, _Node] = {}
    for position, binding in enumerate(main_bindings(function)):
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
    return nodes


def _shape(node: _Node) -> tuple[int, ...] | None:
    """Return the shape of a node's value; None unless it is a tensor."""
    return static_shape(node.var.ty) if is_tensor(node.var) else None


def _extension(tail: _Node, room: int) -> list[_Node]:
    """Return the element-wise nodes between `tail` and its immediate post-dominator, inclusive.

    Empty if a node between them cannot be fused: it has another shape or role, or its value
    escapes.
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
    """Return `anchor` with the nodes that fuse after it.

    The group has at most `most` nodes, apart from a shuffle of channels.
    """
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
    for node in _shuffle_after(group):
        node.group = anchor.position
        group.append(node)
    return group


def _shuffle_after(group: Sequence[_Node]) -> list[_Node]:
    """Return the channel shuffle after a grouped convolution, if it has the same groups.

    The kernel can then write in shuffled order.
    """
    anchor, tail = group[0], group[-1]
    if anchor.operator != "nn.conv2d" or int(anchor.value.attrs.groups) == 1:
        return []
    shuffle: list[_Node] = []
    for _ in OPERATORS:
        last = shuffle[-1] if shuffle else tail
        if last.escapes or len(last.consumers) != 1 or last.consumers[0].group is not None:
            return []
        shuffle.append(last.consumers[0])
    groups = shuffle_groups([node.value for node in shuffle])
    is_depthwise = static_shape(anchor.value.args[1].ty)[1] == 1
    return shuffle if groups == int(anchor.value.attrs.groups) and not is_depthwise else []


def _is_prologue(node: _Node) -> bool:
    """Return whether a node is a dequantisation, which every consumer repeats.

    Integers cross between groups instead of real numbers.
    """
    return node.operator == "dequantize" and not node.escapes and bool(node.consumers)


def _with_prologues(ungrouped: Sequence[_Node], members: Sequence[_Node]) -> tuple[_Node, ...]:
    """Return the ungrouped values that a group reads, followed by `members`."""
    inside = set(members)
    return (*(node for node in ungrouped if inside & set(node.consumers)), *members)


def _chain_of_movement(start: _Node) -> list[_Node]:
    """Return `start` and the following operators that only move elements.

    Each is the only consumer of its predecessor.
    """
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
    """Nodes of one sub-graph."""

    nodes: tuple[_Node, ...]
    """Nodes in order; the last one computes the sub-graph's result."""

    anchor: str
    """Operator of the anchor, or kind of the sub-graph."""


def _attentions(nodes: Sequence[_Node]) -> Iterator[_Group]:
    """Group the nodes of every attention."""
    producers: dict[Expr, _Node] = {node.var: node for node in nodes}
    for node in nodes:
        found = match_attention(node, producers) if node.group is None else None
        if found:
            members = [producers[member.var] for member in found]
            for member in members:
                member.group = node.position
            yield _Group(tuple(members), ANCHOR)


def _form_groups(nodes: Sequence[_Node], most: int, *, attention: bool) -> list[_Group]:
    """Group all nodes: attentions, normalisations across channels, anchors, then the rest.

    The groups are sorted by their results.
    """
    groups = list(_attentions(nodes)) if attention else []
    for node in nodes:
        lrn = match_lrn(node) if node.group is None else None
        if lrn:
            for member in lrn:
                member.group = node.position
            groups.append(_Group(tuple(lrn), "lrn"))
    # Last anchor first: of the branches that a residual add joins, the later one can take the add
    # without waiting for a branch that is computed after it.
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
    """Return whether a constant becomes a weight parameter."""
    return isinstance(expr, Constant) and prod(static_shape(expr.ty)) > INLINE_CONSTANT_ELEMENTS


def _outside_reads(group: _Group) -> tuple[list[Var], list[Constant]]:
    """Return the activations and weights that a group reads, each once, in order of first use."""
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
    """Make the function of a group."""
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


class _Partitioning(MainRewriter):
    def __init__(self, module: tvm.IRModule, most: int, *, attention: bool) -> None:
        super().__init__(module)
        nodes = _read_nodes(self.main)
        self.inside = {node.var for node in nodes}
        self.groups = {
            group.nodes[-1].var: (f"s{index}", group)
            for index, group in enumerate(_form_groups(nodes, most, attention=attention))
        }
        """Each group with its id, by its result."""

    def rewrite(self, binding: relax.VarBinding) -> Expr | None:
        if binding.var in self.groups:
            return self._call(*self.groups[binding.var])
        return None if binding.var in self.inside else self.copy(binding)

    def _call(self, subgraph: str, group: _Group) -> Expr:
        activations, weights = _outside_reads(group)
        function = _subgraph_function(group, subgraph, activations, weights)
        callee = self.builder.add_func(function, f"subgraph_{subgraph}")
        return self.builder.emit(
            Call(callee, [self.renewed(read) for read in (*activations, *weights)])
        )


@tvm.transform.module_pass(opt_level=0, name="PartitionSubgraphs")
@dataclass(frozen=True)
class PartitionSubgraphs(ModulePass):
    """Turn `main` into calls of sub-graph functions, numbered ``s0``, ``s1`` and so on.

    ``relu(add(conv2d(x, w), b))`` → ``s0(x, w, b)``. A sub-graph includes the quantisation of its
    result and the dequantisation of its operands.

    *Requires* a `main` without control flow, with static shapes. *Ensures* that every operator call
    of `main` is in exactly one sub-graph, except a dequantisation, which is in every sub-graph that
    reads it. Sub-graphs are convex and have one result. A partitioned module stays unchanged.
    :class:`tvm_passes.name_subgraphs.NameSubgraphs` gives ids that do not depend on positions.
    """

    max_operators: int = MAX_OPERATORS
    """Maximum number of operators that are fused into one sub-graph; 1 fuses none."""
    attention: bool = True
    """True to fuse each attention into one sub-graph, with the movements around it."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Partition `main` of `module`."""
        if any("layoutsel.subgraph" in f.attrs for f in module.functions.values() if f.attrs):
            return module
        return _Partitioning(
            module, self.max_operators, attention=self.attention and self.max_operators > 1
        ).run()
