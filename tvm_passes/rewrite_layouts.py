"""Stage 1 to 2: decided units and layouts, with layout transforms between different neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.backends import device_units, partition_orders
from tvm_passes.decided_functions import decide_function, transform_function
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import IllegalDecision
from tvm_passes.ir import Expr, ModulePass, Var, static_shape, substitute
from tvm_passes.layout import BF16, PLAIN, order_of, storage_of
from tvm_passes.layouts import LAYOUTS
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.precisions import PRECISIONS
from tvm_passes.units.entry import HOST_UNIT


def subgraph_id(function: tvm.ir.BaseFunc) -> SubgraphId | None:
    """Return the id of a sub-graph function; None for other functions."""
    attrs = function.attrs
    return SubgraphId(str(attrs["layoutsel.subgraph"])) if _has(attrs, "subgraph") else None


def functions_of(module: tvm.IRModule) -> dict[SubgraphId, relax.Function]:
    """Return the sub-graph functions of a partitioned module, by id."""
    return {
        subgraph: function
        for function in module.functions.values()
        if (subgraph := subgraph_id(function)) is not None
    }


def _has(attrs: tvm.ir.DictAttrs | None, key: str) -> bool:
    """Return whether attributes include ``layoutsel.<key>``."""
    return attrs is not None and f"layoutsel.{key}" in attrs


def check_decisions(
    module: tvm.IRModule, decisions: Mapping[SubgraphId, Decision]
) -> dict[SubgraphId, relax.Function]:
    """Check that the decisions match the sub-graphs one to one; returns the functions by id.

    Raises
    ------
    IllegalDecision
        If a sub-graph has no decision, or if a decision names an unknown sub-graph, layout or
        precision.
    """
    functions = functions_of(module)
    for subgraph in functions.keys() - decisions.keys():
        raise IllegalDecision(
            f"sub-graph {subgraph} has no decision: got {len(decisions)} decisions "
            f"for {len(functions)} sub-graphs"
        )
    for subgraph in decisions.keys() - functions.keys():
        raise IllegalDecision(
            f"a decision names sub-graph {subgraph}, which the model does not have: it has "
            f"{len(functions)} sub-graphs, such as {', '.join(list(functions)[:3])}"
        )
    for subgraph, decision in decisions.items():
        for part, known in (("layout", LAYOUTS), ("precision", PRECISIONS)):
            if (got := getattr(decision, part)) not in known:
                raise IllegalDecision(
                    f"sub-graph {subgraph}: unknown {part} {got!r}; "
                    f"expected one of {', '.join(known)}"
                )
        if decision.node:
            raise IllegalDecision(
                f"sub-graph {subgraph}: got {decision} for node {decision.node!r}; "
                f"expected a decision for one node, without the node's name"
            )
    return functions


def _unit_of(where: str) -> str:
    """Return the unit of a placed unit; empty if there is none."""
    return where.partition("@")[0]


class _Laying(MainRewriter):
    def __init__(
        self,
        module: tvm.IRModule,
        decisions: Mapping[SubgraphId, Decision],
        byoc: Mapping[str, frozenset[str]],
        devices: frozenset[str],
    ) -> None:
        super().__init__(module, keep=lambda function: subgraph_id(function) is None)
        self.decisions = decisions
        self.byoc = byoc
        self.devices = devices
        self.layouts: dict[Var, tuple[str, ...]] = {}
        """Layout of each value of the new `main`; of a tuple, of each field."""
        self.units: dict[Var, str] = {}
        """Placed unit that computes each value of the new `main`."""
        self.converted: dict[tuple[Var, str, str], Var] = {}
        """A value in another layout, by value, layout and placed unit; empty for the host."""
        self.transforms: dict[tuple[object, ...], GlobalVar] = {}
        """Transform functions by their properties."""

    def rewrite(self, binding: relax.VarBinding) -> Expr:
        value = binding.value
        called = isinstance(value, Call) and isinstance(value.op, GlobalVar)
        if called and subgraph_id(self.module[value.op]):
            return self._subgraph_call(value)
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.mapping:
            return self._field(value)
        return self.builder.emit(self._plain(value))

    def result(self, expr: Expr) -> Expr:
        return self._plain(expr)

    def _subgraph_call(self, call: Call) -> Var:
        """Emit a call of the decided form of the sub-graph that `call` calls."""
        function = self.module[call.op]
        decision = self.decisions[SubgraphId(str(function.attrs["layoutsel.subgraph"]))]
        decided = decide_function(function, decision)
        callee = self.builder.add_func(decided, call.op.name_hint)
        inputs = [str(layout) for layout in decided.attrs["layoutsel.in_layouts"]]
        count = len(inputs)
        arguments = [
            self._value_in(argument, layout, decision.placed_unit)
            for argument, layout in zip(call.args[:count], inputs, strict=True)
        ]
        weights = [self.mapping.get(weight, weight) for weight in call.args[count:]]
        result = self.builder.emit(Call(callee, [*arguments, *weights]))
        self.layouts[result] = tuple(str(item) for item in decided.attrs["layoutsel.out_layouts"])
        self.units[result] = decision.placed_unit
        return result

    def _field(self, value: relax.TupleGetItem) -> Var:
        """Emit a field of a tuple in its layout."""
        source = self.mapping[value.tuple_value]
        result = self.builder.emit(relax.TupleGetItem(source, value.index))
        layouts = self.layouts.get(source, ())[value.index : value.index + 1]
        self.layouts[result] = layouts or (PLAIN,)
        self.units[result] = self.units.get(source, HOST_UNIT)
        return result

    def _value_in(self, value: Expr, wanted: str, unit: str) -> Expr:
        """Return the new value of `value` of the old `main`, in the layout `wanted` by `unit`."""
        new = self.mapping.get(value, value)
        return self._converted_to(new, value.ty, wanted, unit) if isinstance(new, Var) else new

    def _converted_to(self, new: Var, ty: relax.TensorType, wanted: str, unit: str) -> Var:
        """Return `new`, a new value of logical type `ty`, in the layout `wanted` by `unit`."""
        source = self.layouts.get(new, (PLAIN,))[0]
        if source == wanted:
            return new
        where = self._transformer((self.units.get(new, ""), unit), source, wanted)
        key = (new, wanted, where if self._is_on_device(where) else "")
        if key not in self.converted:
            callee = self._transform(ty, source, wanted, where)
            converted = self.builder.emit(Call(callee, [new]))
            self.converted[key] = converted
            self.layouts[converted] = (wanted,)
            self.units[converted] = where
        return self.converted[key]

    def _transformer(self, units: tuple[str, str], source: str, destination: str) -> str:
        """Return the placed unit that transforms a tensor from its producer to its consumer."""
        ends = storage_of(source), storage_of(destination)
        orders = {order_of(source), order_of(destination)}
        if not {*ends} <= {"", BF16}:
            return HOST_UNIT
        # On a device only between values of its unit: the host would have to copy the result back
        # for other consumers.
        if _unit_of(units[0]) == _unit_of(units[1]) and self._is_on_device(units[0]):
            return units[0]
        # The CPU rounds to bfloat16: oneDNN makes infinities of the large finite numbers in masks.
        rounds = ends[1] == BF16 != ends[0]
        partitions = [
            unit for unit in reversed(units) if orders <= self.byoc.get(unit, set()) and not rounds
        ]
        return partitions[0] if partitions else HOST_UNIT

    def _is_on_device(self, where: str) -> bool:
        """Return whether a placed unit has a memory of its own."""
        return _unit_of(where) in self.devices

    def _transform(
        self, ty: relax.TensorType, source: str, destination: str, where: str
    ) -> GlobalVar:
        """Return the transform function with these properties; it is added to the module once."""
        key = (static_shape(ty), str(ty.dtype), source, destination, where)
        if key not in self.transforms:
            function = transform_function(ty, source, destination, where)
            name = f"transform_{source}_{destination}"
            self.transforms[key] = self.builder.add_func(function, name)
        return self.transforms[key]

    def _plain(self, value: Expr) -> Expr:
        """Return `value` of the old `main` over values of the new one in plain layout."""
        return substitute(
            value, lambda leaf: self._plain_leaf(leaf) if isinstance(leaf, Var) else None
        )

    def _plain_leaf(self, leaf: Var) -> Expr:
        """Return the new value of `leaf` in plain layout, for a tuple with all its fields."""
        if not isinstance(leaf.ty, relax.TupleType):
            return self._value_in(leaf, PLAIN, "")
        source = self.mapping.get(leaf, leaf)
        layouts = self.layouts.get(source, ())
        if all(layout == PLAIN for layout in layouts):
            return source
        fields = []
        for index, (ty, layout) in enumerate(zip(leaf.ty.fields, layouts, strict=True)):
            field = self.builder.emit(relax.TupleGetItem(source, index))
            self.layouts[field] = (layout,)
            self.units[field] = self.units[source]
            fields.append(self._converted_to(field, ty, PLAIN, ""))
        return relax.Tuple(fields)


@tvm.transform.module_pass(opt_level=0, name="RewriteLayouts")
@dataclass(frozen=True)
class RewriteLayouts(ModulePass):
    """Put every sub-graph into its decided layout.

    ``s1(s0(x))``, s0 in NHWC and s1 in NCHW16c → ``s1(NHWC>NCHW16c(s0(NCHW>NHWC(x))))``.

    *Requires* a partitioned module. *Ensures* exact reference semantics (the body of each sub-graph
    transforms from and to its physical parameters and results), plain layout at the parameters and
    results of `main`, and one transform per tensor and destination layout.
    """

    decisions: Mapping[SubgraphId, Decision]
    """Decision of each sub-graph."""

    byoc: Mapping[str, frozenset[str]] = field(default_factory=partition_orders)
    """Element orders between which the partitions of a unit can convert, by unit."""

    devices: frozenset[str] = field(default_factory=device_units)
    """Units with a memory of their own; each transforms tensors that stay there."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Rewrite `module`; raises :class:`IllegalDecision` for decisions that do not fit it."""
        check_decisions(module, self.decisions)
        return _Laying(module, self.decisions, self.byoc, self.devices).run()
