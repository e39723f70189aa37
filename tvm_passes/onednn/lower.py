"""Stage 3 to 4: compile partitions to runtime modules of the plugin, with packed weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.arrays import array_of, constant_in_place, own_pages
from tvm_passes.errors import BuildError
from tvm_passes.ir import (
    Constant,
    Expr,
    ModulePass,
    Var,
    constant_of,
    main_bindings,
    static_shape,
    tensor_types,
)
from tvm_passes.layout import LARGEST_BF16, PLAIN, SPLIT, logical_shape, order_of, storage_of
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.onednn.graph import PrimitiveGraph, Storage, StoredTensor
from tvm_passes.onednn.halves import received, tripled_values
from tvm_passes.onednn.plugin import function as plugin_function
from tvm_passes.onednn.plugin import limited_to, load
from tvm_passes.onednn.scope import Scope, Unsupported, Value, implementations
from tvm_passes.onednn.storage import merge_storages
from tvm_passes.onednn.subgraph import emit, make_scope
from tvm_passes.targets import kernel_threads
from tvm_passes.weight_pool import packed_constant

UNIT = "onednn"
"""Name of the compute unit."""
_HALF = "bfloat16"
"""Reduced element type whose sums need clipped constants."""
CODEGEN = "layoutsel_onednn"
"""Value of the attribute ``Codegen`` of partitions for oneDNN."""


def _label(function: relax.Function, key: str, otherwise: str = "") -> str:
    """Return the attribute ``layoutsel.<key>` of `function`, or `otherwise`."""
    name = f"layoutsel.{key}"
    return str(function.attrs[name]) if name in function.attrs else otherwise


class _PartitionEmitter:
    """Emitter of one stage-3 function."""

    def __init__(self, symbol: str, function: relax.Function) -> None:
        self.graph = PrimitiveGraph(symbol, num_params=len(function.params))
        self.function = function
        self.values: dict[Var, Value] = {}
        self.callees: dict[Var, relax.Function] = {}
        self.weights = _weight_params(function)

    def run(self) -> PrimitiveGraph:
        """Build the graph of the whole partition."""
        for index, param in enumerate(self.function.params):
            shape = static_shape(param.ty)
            kind = "weight" if param in self.weights else "input"
            tensor = StoredTensor(shape, Storage(kind, 0, index), dtype=str(param.ty.dtype))
            tensor.storage.bytes = tensor.bytes
            self.values[param] = tensor
        for binding in main_bindings(self.function):
            if isinstance(binding.value, relax.Function):
                self.callees[binding.var] = binding.value
            else:
                self.values[binding.var] = self.value(binding.value)
        result = self.value(self.function.body.body)
        self.graph.set_outputs(result if isinstance(result, list) else [result])
        merge_storages(self.graph)
        return self.graph

    def value(self, expr: Expr) -> Value:
        if isinstance(expr, Call) and expr.op in self.callees:
            return self.call(self.callees[expr.op], [self.values[arg] for arg in expr.args])
        if isinstance(expr, relax.Tuple):
            return [self.tensor(field) for field in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            fields = self.value(expr.tuple_value)
            assert isinstance(fields, list)
            return fields[expr.index]
        return self.values[expr]

    def tensor(self, expr: Expr) -> StoredTensor:
        value = self.value(expr)
        assert isinstance(value, StoredTensor)
        return value

    def call(self, callee: relax.Function, arguments: Sequence[Value]) -> Value:
        layouts = [str(layout) for layout in callee.attrs["layoutsel.in_layouts"]]
        layouts += [PLAIN] * (len(arguments) - len(layouts))
        params = [
            _in_layout(argument, layout)
            for argument, layout in zip(arguments, layouts, strict=True)
        ]
        if "layoutsel.transform" in callee.attrs:
            return self.transform(callee, params)
        labels = {
            "subgraph": _label(callee, "subgraph"),
            "layout": _label(callee, "layout", PLAIN),
            "precision": _label(callee, "precision", "f32"),
            "algorithm": _label(callee, "algorithm", "direct"),
        }
        try:
            scope = make_scope(self.graph, callee, labels)
            results = emit(scope, params, _label(callee, "anchor"))
        except Unsupported as error:
            message = f"sub-graph {labels['subgraph']} on onednn: {error}"
            raise BuildError(message, subgraph=labels["subgraph"], unit=UNIT) from error
        return results if isinstance(callee.ret_ty, relax.TupleType) else results[0]

    def transform(self, callee: relax.Function, params: Sequence[StoredTensor]) -> StoredTensor:
        destination = order_of(str(callee.attrs["layoutsel.out_layouts"][0]))
        scope = Scope(self.graph, callee, _label(callee, "transform"), operator="layout_transform")
        return scope.convert(params[0], destination, str(callee.ret_ty.dtype))


def _in_layout(argument: Value, layout: str) -> StoredTensor:
    """Return `argument` in the layout of its consumer; a partition's parameters carry no layout."""
    assert isinstance(argument, StoredTensor)
    layout, storage = order_of(layout), storage_of(layout)
    if storage == SPLIT and argument.storage.kind == "input":
        return received(argument, layout)
    if (
        argument.layout == layout
        or argument.storage.kind != "input"
        or argument.strides is not None
    ):
        return argument
    return argument.view(logical_shape(argument.shape, layout), layout)


def _weight_params(function: relax.Function) -> set[Var]:
    """Return the parameters that sub-graphs read as weights only."""
    callees: dict[Var, relax.Function] = {}
    weights: set[Var] = set()
    activations: set[Var] = set()
    params = set(function.params)
    for binding in main_bindings(function):
        value = binding.value
        if isinstance(value, relax.Function):
            callees[binding.var] = value
        elif isinstance(value, Call):
            callee = callees[value.op]
            count = len(callee.attrs["layoutsel.in_layouts"])
            activations.update(arg for arg in value.args[:count] if arg in params)
            weights.update(arg for arg in value.args[count:] if arg in params)
    return weights - activations


def emit_partition(symbol: str, function: relax.Function) -> PrimitiveGraph:
    """Build the primitive graph of a stage-3 function.

    Raises
    ------
    BuildError
        If an operator has no primitive; names the sub-graph.
    """
    load()
    return _PartitionEmitter(symbol, function).run()


def create_module(graph: PrimitiveGraph) -> Any:
    """Create the runtime module of `graph`."""
    return plugin_function("layoutsel.onednn.create")(graph.to_json())


def _pack(graph: PrimitiveGraph, constants: Mapping[int, Constant]) -> tuple[list[int], list[Expr]]:
    """Pack the weights of `graph` and renumber its parameters.

    Parameters
    ----------
    constants
        Known values of parameters, by index.

    Returns
    -------
    activations, weights
        Old indices of the remaining parameters; packed weights, which follow them.
    """
    weights = graph.weights()
    known = [weight for weight in weights if weight.storage.index in constants]
    _check_halves(graph, weights, known)
    module = create_module(graph)
    _, numbers = graph.numbered()
    packed: list[Expr] = []
    narrow = any(node.output.dtype == _HALF for node in graph.nodes)
    for weight in known:
        source = constants[weight.storage.index]
        number = numbers[id(weight)]
        if not weight.packable:
            packed.append(_held(source) if narrow else source)
            continue
        value = source.value
        if weight.tripled is not None:
            value = constant_in_place(tripled_values(array_of(source), *weight.tripled)).value
        weight.packed, array = _packed(module, graph.symbol, number, value)
        packed.append(packed_constant(array))
    inside = {id(weight.storage) for weight in known}
    roots = {t.storage.root()[0] for node in graph.nodes for t in (*node.reads(), node.output)}
    others = [s for s in roots if s.kind in ("input", "weight") and id(s) not in inside]
    stay = sorted({storage.index for storage in others})
    for storage in others:
        storage.index = stay.index(storage.index)
    for offset, weight in enumerate(known):
        weight.storage.index = len(stay) + offset
    graph.num_params = len(stay) + len(known)
    return stay, packed


def _held(constant: Constant) -> Constant:
    """Clip the finite numbers of `constant` to the range of bfloat16.

    Its sums with activations are stored in bfloat16, where larger numbers would be infinite.
    """
    if str(constant.ty.dtype) != "float32":
        return constant
    values = array_of(constant)
    large = np.isfinite(values) & (np.abs(values) > LARGEST_BF16)
    if not large.any():
        return constant
    return constant_of(np.where(large, np.copysign(np.float32(LARGEST_BF16), values), values))


def _check_halves(
    graph: PrimitiveGraph, weights: Sequence[StoredTensor], known: Sequence[StoredTensor]
) -> None:
    """Reject an unknown weight that must be split into halves: no primitive does so at run time."""
    for weight in weights:
        if weight.tripled is not None and weight not in known:
            raise BuildError(
                f"partition {graph.symbol}: weight {weight.storage.index} of a split-bf16 product "
                f"is a parameter; expected a constant. Bind the parameters, or choose f32"
            )


def _packed(module: Any, symbol: str, number: int, source: Any) -> tuple[str, np.ndarray]:
    """Pack one weight; returns the name of its packed form and the packed weight."""
    form = str(module[f"{symbol}.packed_form"](number))
    size = int(module[f"{symbol}.packed_bytes"](number))
    packed = own_pages((-(-size // 4),), "float32")
    module[f"{symbol}.pack"](number, source, tvm.runtime.from_dlpack(packed))
    return form, packed


def _own_storages(graph: PrimitiveGraph) -> None:
    """Give every packable use of a constant weight its own storage.

    Each use may need another packed form.
    """
    seen: set[int] = set()
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor.packable and tensor.storage.kind == "weight":
                storage = tensor.storage
                tensor.storage = Storage("weight", storage.bytes, storage.index)
                seen.add(id(tensor.storage))


@tvm.transform.module_pass(opt_level=0, name="LowerOnednn")
class LowerOnednn(ModulePass):
    """Compile the partitions for oneDNN, and call them in destination-passing style.

    ``p0(x, w)`` → ``call_dps_packed("p0", (x, packed w))``, and a module in attribute
    ``external_mods``.

    *Requires* stage 3. *Ensures* that no function has ``Codegen`` "layoutsel_onednn", and that
    weights are packed.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Lower every partition of `module`; raises :class:`BuildError` if one cannot be built."""
        partitions = {
            gv: function for gv, function in module.functions.items() if _is_ours(function)
        }
        if not partitions:
            return module
        lowering = _Lowering(module, partitions)
        lowered = lowering.run()
        attrs = dict(module.attrs) if module.attrs else {}
        attrs["external_mods"] = [*attrs.get("external_mods", []), *lowering.externals]
        return lowered.with_attrs(attrs)


def _is_ours(function: tvm.ir.BaseFunc) -> bool:
    """Return whether a function is a partition for oneDNN."""
    return (
        isinstance(function, relax.Function)
        and function.attrs is not None
        and "Codegen" in function.attrs
        and str(function.attrs["Codegen"]) == CODEGEN
    )


class _Lowering(MainRewriter):
    """Rewriter of the main function that replaces calls of partitions."""

    def __init__(
        self, module: tvm.IRModule, partitions: Mapping[GlobalVar, relax.Function]
    ) -> None:
        super().__init__(module, keep=lambda function: not _is_ours(function))
        self.partitions = partitions
        self.externals: list[Any] = []
        """Runtime modules of the partitions, in the order of their calls."""

    def rewrite(self, binding: relax.VarBinding) -> Expr:
        value = self.renewed(binding.value)
        if not isinstance(value, Call) or value.op not in self.partitions:
            return self.copy(binding)
        external, lowered = _lower_call(self.partitions[value.op], value)
        self.externals.append(external)
        return self.builder.emit(lowered)


def _lower_call(function: relax.Function, call: Call) -> tuple[Any, Expr]:
    """Compile one partition; returns its runtime module and the call that replaces `call`."""
    symbol = str(function.attrs["global_symbol"])
    constants = {i: arg for i, arg in enumerate(call.args) if isinstance(arg, Constant)}
    graph = emit_partition(symbol, function)
    try:
        _own_storages(graph)
        with limited_to(kernel_threads()):
            stay, weights = _pack(graph, constants)
        external = create_module(graph)
    except (RuntimeError, ValueError) as error:
        failed = _failed_node(graph)
        raise BuildError(f"partition {symbol}: {error}", subgraph=failed, unit=UNIT) from error
    arguments = relax.Tuple([*(call.args[index] for index in stay), *weights])
    types = tensor_types(function.ret_ty)
    value = relax.op.call_dps_packed(relax.ExternFunc(symbol), arguments, types)
    return external, value


def _failed_node(graph: PrimitiveGraph) -> str:
    """Return the sub-graph of the first primitive that oneDNN lacks; empty if it has all."""
    for node in graph.nodes:
        try:
            implementations(graph.to_json([node]))
        except (RuntimeError, ValueError):
            return node.subgraph
    return ""
