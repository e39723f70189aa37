"""Stage 1 → 2: give every sub-graph its unit and layout, with transforms where neighbours differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import IllegalDecision
from tvm_passes.ir import Expr, ModulePass, Var, main_bindings, rebuilding, static_shape, substitute
from tvm_passes.layout import (
    BF16,
    LAYOUTS,
    PLAIN,
    SPLIT,
    STORAGES,
    index_map,
    order_of,
    physical_dtype,
    physical_shape,
    storage_of,
)
from tvm_passes.ports import port_layouts, with_ports


def subgraph_id(function: tvm.ir.BaseFunc) -> SubgraphId | None:
    """Id of a sub-graph function; None for any other."""
    attrs = function.attrs
    return SubgraphId(str(attrs["layoutsel.subgraph"])) if _has(attrs, "subgraph") else None


def _has(attrs: tvm.ir.DictAttrs | None, key: str) -> bool:
    return attrs is not None and f"layoutsel.{key}" in attrs


def _physical_type(ty: relax.TensorType, layout: str) -> relax.TensorType:
    shape = physical_shape(static_shape(ty), layout)
    return relax.TensorType(shape, physical_dtype(str(ty.dtype), layout))


def _emit_transform(
    builder: relax.BlockBuilder, value: Expr, source: str, destination: str
) -> Expr:
    """Emit `value`, stored in `source`, stored in `destination`."""
    if source == destination:
        return value
    converts = storage_of(source) != storage_of(destination) or storage_of(source) == SPLIT
    if converts:
        value = _emit_values(builder, value, storage_of(source))
    if order_of(source) != order_of(destination):
        move = index_map(order_of(source), order_of(destination))
        value = builder.emit(relax.op.layout_transform(value, move))
    return _emit_stored(builder, value, storage_of(destination)) if converts else value


def _emit_values(builder: relax.BlockBuilder, value: Expr, storage: str) -> Expr:
    """Emit the float32 values of a tensor in `storage`."""
    if storage == SPLIT:
        parts = [relax.op.take(value, relax.const(part, "int64"), axis=-2) for part in (0, 1)]
        high, low = (builder.emit(relax.op.astype(builder.emit(part), "float32")) for part in parts)
        return builder.emit(relax.op.add(high, low))
    return builder.emit(relax.op.astype(value, "float32")) if storage == BF16 else value


def _emit_stored(builder: relax.BlockBuilder, value: Expr, storage: str) -> Expr:
    """Emit float32 values in `storage`."""
    if not storage:
        return value
    high = builder.emit(relax.op.astype(value, "bfloat16"))
    if storage == BF16:
        return high
    rest = relax.op.subtract(value, builder.emit(relax.op.astype(high, "float32")))
    low = builder.emit(relax.op.astype(builder.emit(rest), "bfloat16"))
    return builder.emit(relax.op.stack([high, low], axis=-2))


def decide_function(function: relax.Function, decision: Decision) -> relax.Function:
    """The stage-2 form of a stage-1 sub-graph function: physical parameters, the decision as attributes.

    Its body is that of stage 1 between transforms from and to the physical tensors, which
    :func:`tvm_passes.ports.read_ports` tells apart.
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
    attrs = {key: function.attrs[key] for key in function.attrs.keys()}  # noqa: SIM118 - TVM's attributes do not iterate
    return decided.with_attrs(
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


def _transform_results(builder: relax.BlockBuilder, result: Expr, layouts: Sequence[str]) -> Expr:
    if isinstance(result.ty, relax.TensorType):
        return _emit_transform(builder, result, PLAIN, layouts[0])
    fields = [
        _emit_transform(builder, builder.emit(relax.TupleGetItem(result, index)), PLAIN, layout)
        for index, layout in enumerate(layouts)
    ]
    return relax.Tuple(fields)


def transform_function(
    logical: relax.TensorType, source: str, destination: str, unit: str
) -> relax.Function:
    """A function that changes the layout of a tensor of the `logical` type, for `unit` to run."""
    param = relax.Var("x", _physical_type(logical, source))
    builder = relax.BlockBuilder()
    with builder.function("transform", [param]):
        with builder.dataflow():
            result = builder.emit_output(_emit_transform(builder, param, source, destination))
        builder.emit_func_output(result)
    function = builder.get()["transform"].without_attr("global_symbol")
    return function.with_attrs(
        {
            "layoutsel.transform": f"{source}>{destination}",
            "layoutsel.unit": unit,
            "layoutsel.in_layouts": [source],
            "layoutsel.out_layouts": [destination],
        }
    )


def check_decisions(
    module: tvm.IRModule, decisions: Mapping[SubgraphId, Decision]
) -> dict[SubgraphId, relax.Function]:
    """The sub-graph functions of a partitioned module, each of which has a decision and the other way round.

    Raises
    ------
    IllegalDecision
        If a sub-graph has no decision, a decision has no sub-graph, or names an unknown layout or precision.
    """
    functions = {
        subgraph: function
        for function in module.functions.values()
        if (subgraph := subgraph_id(function)) is not None
    }
    for subgraph in functions.keys() - decisions.keys():
        raise IllegalDecision(
            f"sub-graph {subgraph} has no decision: got {len(decisions)} decisions "
            f"for {len(functions)} sub-graphs"
        )
    for subgraph in decisions.keys() - functions.keys():
        raise IllegalDecision(
            f"a decision names sub-graph {subgraph}, which the model does not have: "
            f"it has s0 to s{len(functions) - 1}"
        )
    for subgraph, decision in decisions.items():
        for field, known in (("layout", LAYOUTS), ("precision", tuple(STORAGES))):
            if (got := getattr(decision, field)) not in known:
                raise IllegalDecision(
                    f"sub-graph {subgraph}: unknown {field} {got!r}; expected one of {', '.join(known)}"
                )
    return functions


class _Rewriter:
    """Re-emits `main`, remembering in which layout each value lies."""

    def __init__(
        self,
        module: tvm.IRModule,
        decisions: Mapping[SubgraphId, Decision],
        byoc: frozenset[str],
        devices: frozenset[str],
    ) -> None:
        self.module = module
        self.decisions = decisions
        self.byoc = byoc
        self.devices = devices
        self.builder = rebuilding(module, lambda _name, function: not subgraph_id(function))
        self.mapping: dict[Expr, Expr] = {}
        self.layouts: dict[Var, tuple[str, ...]] = {}
        self.units: dict[Var, str] = {}
        self.converted: dict[tuple[Var, str, str], Var] = {}
        self.transforms: dict[tuple[object, ...], GlobalVar] = {}

    def value_in(self, value: Expr, wanted: str, unit: str) -> Expr:
        """`value` of the old `main` as a value of the new one that lies in `wanted`."""
        new = self.mapping.get(value, value)
        return self.converted_to(new, value.ty, wanted, unit) if isinstance(new, Var) else new

    def converted_to(self, new: Var, ty: relax.TensorType, wanted: str, unit: str) -> Var:
        """`new`, a value of the new `main` whose logical type is `ty`, in `wanted`."""
        source = self.layouts.get(new, (PLAIN,))[0]
        if source == wanted:
            return new
        where = self.transformer((self.units.get(new, ""), unit), source, wanted)
        key = (new, wanted, where if where in self.devices else "")
        if key not in self.converted:
            callee = self.transform(ty, source, wanted, where)
            converted = self.builder.emit(Call(callee, [new]))
            self.converted[key] = converted
            self.layouts[converted] = (wanted,)
            self.units[converted] = where
        return self.converted[key]

    def transformer(self, units: tuple[str, str], source: str, destination: str) -> str:
        """Who changes the layout of what one of `units` makes and the other reads: the CPU where no partition can.

        A device does where both ends are on it; else what others read would have to come back. The CPU rounds to
        bfloat16: oneDNN makes infinities of the finite numbers that masks consist of.
        """
        ends = storage_of(source), storage_of(destination)
        if SPLIT in ends:
            return "cpu"
        if units[0] == units[1] and units[0] in self.devices:
            return units[0]
        rounds = ends[1] == BF16 != ends[0]
        partitions = [unit for unit in reversed(units) if unit in self.byoc and not rounds]
        return partitions[0] if partitions else "cpu"

    def transform(
        self, ty: relax.TensorType, source: str, destination: str, unit: str
    ) -> GlobalVar:
        """The transform function of these properties, made once."""
        key = (static_shape(ty), str(ty.dtype), source, destination, unit)
        if key not in self.transforms:
            function = transform_function(ty, source, destination, unit)
            name = f"transform_{source}_{destination}"
            self.transforms[key] = self.builder.add_func(function, name)
        return self.transforms[key]

    def subgraph_call(self, call: Call) -> Var:
        """Emit a call of the decided form of the sub-graph that `call` calls."""
        function = self.module[call.op]
        decision = self.decisions[SubgraphId(str(function.attrs["layoutsel.subgraph"]))]
        decided = decide_function(function, decision)
        callee = self.builder.add_func(decided, call.op.name_hint)
        inputs = [str(layout) for layout in decided.attrs["layoutsel.in_layouts"]]
        count = len(inputs)
        arguments = [
            self.value_in(argument, layout, decision.unit)
            for argument, layout in zip(call.args[:count], inputs, strict=True)
        ]
        weights = [self.mapping.get(weight, weight) for weight in call.args[count:]]
        result = self.builder.emit(Call(callee, [*arguments, *weights]))
        self.layouts[result] = tuple(str(item) for item in decided.attrs["layoutsel.out_layouts"])
        self.units[result] = decision.unit
        return result

    def other(self, value: Expr) -> Expr:
        """Emit a binding that calls no sub-graph: tuples and their fields."""
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.mapping:
            source = self.mapping[value.tuple_value]
            result = self.builder.emit(relax.TupleGetItem(source, value.index))
            self.layouts[result] = (
                self.layouts.get(source, ())[value.index : value.index + 1]
            ) or (PLAIN,)
            self.units[result] = self.units.get(source, "cpu")
            return result
        return self.builder.emit(self.plain(value))

    def plain(self, value: Expr) -> Expr:
        """`value` with every variable in plain layout."""
        return substitute(
            value, lambda leaf: self.plain_leaf(leaf) if isinstance(leaf, Var) else None
        )

    def plain_leaf(self, leaf: Var) -> Expr:
        """`leaf` in plain layout; of a tuple, every field."""
        if not isinstance(leaf.ty, relax.TupleType):
            return self.value_in(leaf, PLAIN, "")
        source = self.mapping.get(leaf, leaf)
        layouts = self.layouts.get(source, ())
        if all(layout == PLAIN for layout in layouts):
            return source
        fields = []
        for index, (ty, layout) in enumerate(zip(leaf.ty.fields, layouts, strict=True)):
            field = self.builder.emit(relax.TupleGetItem(source, index))
            self.layouts[field] = (layout,)
            self.units[field] = self.units[source]
            fields.append(self.converted_to(field, ty, PLAIN, ""))
        return relax.Tuple(fields)

    def rewrite(self) -> tvm.IRModule:
        """The module of stage 2."""
        main = self.module["main"]
        with self.builder.function(
            "main", main.params, attrs=dict(main.attrs) if main.attrs else None
        ):
            with self.builder.dataflow():
                for binding in main_bindings(main):
                    value = binding.value
                    called = isinstance(value, Call) and isinstance(value.op, GlobalVar)
                    if called and subgraph_id(self.module[value.op]):
                        self.mapping[binding.var] = self.subgraph_call(value)
                    else:
                        self.mapping[binding.var] = self.other(value)
                result = self.builder.emit_output(self.plain(main.body.body))
            self.builder.emit_func_output(result)
        return self.builder.finalize()


@tvm.transform.module_pass(opt_level=0, name="RewriteLayouts")
class RewriteLayouts(ModulePass):
    """Put every sub-graph into the layout that `decisions` name.

    ``s1(s0(x))``, s0 in NHWC and s1 in NCHW16c → ``s1(NHWC>NCHW16c(s0(NCHW>NHWC(x))))``.

    *Requires* a partitioned module. *Ensures* exact reference semantics (each sub-graph's body holds the transforms from
    and to its physical parameters), plain layout at `main`'s parameters and results, one transform per tensor and
    destination layout.

    Parameters
    ----------
    decisions
        One for each sub-graph.
    byoc
        Units whose transforms run inside their partitions.
    devices
        Units with a memory of their own, which transform what stays there.
    """

    def __init__(
        self,
        decisions: Mapping[SubgraphId, Decision],
        byoc: frozenset[str] = frozenset({"onednn"}),
        devices: frozenset[str] = frozenset({"cuda", "opencl"}),
    ) -> None:
        self.decisions = decisions
        self.byoc = byoc
        self.devices = devices

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Rewrite `module`; raises :class:`IllegalDecision` for decisions that do not fit it."""
        check_decisions(module, self.decisions)
        return _Rewriter(module, self.decisions, self.byoc, self.devices).rewrite()
