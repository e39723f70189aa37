"""Stage 1 to 2: decided units and layouts, with layout transforms between different neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.backends import device_units, partition_orders
from tvm_passes.decision import Decision, SubgraphId, parse_placed_unit
from tvm_passes.errors import IllegalDecision
from tvm_passes.ir import (
    Expr,
    ModulePass,
    Var,
    main_bindings,
    static_shape,
    substitute,
    with_device_index,
)
from tvm_passes.layout import (
    BF16,
    PLAIN,
    index_map,
    order_of,
    parts_of,
    physical_dtype,
    physical_shape,
    storage_of,
)
from tvm_passes.layouts import LAYOUTS
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.ports import port_layouts, with_ports
from tvm_passes.precisions import PRECISIONS, element_storage
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


def _physical_type(ty: relax.TensorType, layout: str) -> relax.TensorType:
    """Return the type in memory of a tensor."""
    shape = physical_shape(static_shape(ty), layout)
    return relax.TensorType(shape, physical_dtype(str(ty.dtype), layout))


def _emit_transform(
    builder: relax.BlockBuilder, value: Expr, source: str, destination: str
) -> Expr:
    """Emit the layout transform of `value` from `source` to `destination`."""
    if source == destination:
        return value
    converts = storage_of(source) != storage_of(destination) or parts_of(source) > 1
    if converts:
        value = _emit_values(builder, value, storage_of(source))
    if order_of(source) != order_of(destination):
        move = index_map(order_of(source), order_of(destination))
        value = builder.emit(relax.op.layout_transform(value, move))
    return _emit_stored(builder, value, storage_of(destination)) if converts else value


def _emit_values(builder: relax.BlockBuilder, value: Expr, storage: str) -> Expr:
    """Emit the float32 values of a tensor in `storage`."""
    if not storage:
        return value
    parts = element_storage(storage).parts
    if parts == 1:
        return builder.emit(relax.op.astype(value, "float32"))
    each = [relax.op.take(value, relax.const(part, "int64"), axis=-2) for part in range(parts)]
    total, *others = (builder.emit(relax.op.astype(builder.emit(part), "float32")) for part in each)
    for other in others:
        total = builder.emit(relax.op.add(total, other))
    return total


def _emit_stored(builder: relax.BlockBuilder, value: Expr, storage: str) -> Expr:
    """Emit a tensor of float32 values in `storage`."""
    if not storage:
        return value
    form = element_storage(storage)
    parts = [builder.emit(relax.op.astype(value, form.dtype))]
    while len(parts) < form.parts:
        rounded = builder.emit(relax.op.astype(parts[-1], "float32"))
        value = builder.emit(relax.op.subtract(value, rounded))
        parts.append(builder.emit(relax.op.astype(value, form.dtype)))
    return parts[0] if form.parts == 1 else builder.emit(relax.op.stack(parts, axis=-2))


def decide_function(function: relax.Function, decision: Decision) -> relax.Function:
    """Return the stage-2 form of a function: physical parameters, the decision as attributes.

    Its body is the body of stage 1, between transforms from and to the physical tensors.
    :func:`tvm_passes.ports.read_ports` separates the two again.
    """
    inputs, outputs = port_layouts(function, decision)
    count = len(inputs)
    params = [
        relax.Var(param.name, _physical_type(param.ty, layout))
        for param, layout in zip(function.params[:count], inputs, strict=True)
    ] + [relax.Var(param.name, param.ty) for param in function.params[count:]]
    builder = relax.BlockBuilder()
    with builder.function("subgraph", params):
        with builder.dataflow():
            mapping: dict[Expr, Expr] = dict(zip(function.params, params, strict=True))
            for param, layout in zip(function.params[:count], inputs, strict=True):
                mapping[param] = _emit_transform(builder, mapping[param], layout, PLAIN)
            for binding in main_bindings(function):
                mapping[binding.var] = builder.emit(substitute(binding.value, mapping.get))
            logical = result = mapping[function.body.body]
            if outputs != (PLAIN,) * len(outputs):
                result = _transform_results(builder, result, outputs)
            result = builder.emit_output(result)
        builder.emit_func_output(result)
    decided = builder.get()["subgraph"].without_attr("global_symbol")
    values = [mapping[param] for param in function.params[:count]]
    decided = with_ports(decided, values, logical)
    # TVM's attributes do not iterate.
    attrs = {key: function.attrs[key] for key in function.attrs.keys()}  # noqa: SIM118
    decided = decided.with_attrs(
        {
            **attrs,
            "layoutsel.unit": decision.unit,
            "layoutsel.layout": decision.layout,
            "layoutsel.precision": decision.precision,
            "layoutsel.algorithm": decision.algorithm,
            "layoutsel.in_layouts": list(inputs),
            "layoutsel.out_layouts": list(outputs),
        }
    )
    return with_device_index(decided, decision.index)


def _transform_results(builder: relax.BlockBuilder, result: Expr, layouts: Sequence[str]) -> Expr:
    """Emit the transforms of the results to their layouts."""
    if isinstance(result.ty, relax.TensorType):
        return _emit_transform(builder, result, PLAIN, layouts[0])
    fields = [
        _emit_transform(builder, builder.emit(relax.TupleGetItem(result, index)), PLAIN, layout)
        for index, layout in enumerate(layouts)
    ]
    return relax.Tuple(fields)


def transform_function(
    logical: relax.TensorType, source: str, destination: str, where: str
) -> relax.Function:
    """Make the function that transforms the layout of a tensor on the placed unit `where`.

    Parameters
    ----------
    logical
        Logical type of the tensor.
    source, destination
        Layouts.
    """
    unit, device = parse_placed_unit(where)
    param = relax.Var("x", _physical_type(logical, source))
    builder = relax.BlockBuilder()
    with builder.function("transform", [param]):
        with builder.dataflow():
            result = builder.emit_output(_emit_transform(builder, param, source, destination))
        builder.emit_func_output(result)
    function = builder.get()["transform"].without_attr("global_symbol")
    function = function.with_attrs(
        {
            "layoutsel.transform": f"{source}>{destination}",
            "layoutsel.unit": unit,
            "layoutsel.in_layouts": [source],
            "layoutsel.out_layouts": [destination],
        }
    )
    return with_device_index(function, device.index)


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
