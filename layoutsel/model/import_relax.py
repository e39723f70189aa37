"""Conversion of a prepared ONNX graph to Relax: TVM's importer with our converters and errors."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import tvm
from onnx import GraphProto, NodeProto
from tvm import relax
from tvm.ir import IRModule
from tvm.ir.expr import GenericConst
from tvm.relax.frontend.onnx import onnx_frontend as stock

from layoutsel.errors import ImporterFault, ModelTooLarge, UnsupportedModel
from layoutsel.model import import_converters, import_prepare
from layoutsel.model.import_evaluation import SMALL, evaluate_within
from layoutsel.model.import_limits import check_type
from layoutsel.model.source_names import identifies
from tvm_passes.arrays import constant_in_place, constant_of
from tvm_passes.limits import ImportBudget, ImportLimits
from tvm_passes.operator_calls import declare_operators
from tvm_passes.operators import OPERATORS

_KEPT = frozenset(["DequantizeLinear"])
"""Operators on constants that are not folded: they also state the integers and steps of values."""

_SHAPED_BY_VALUES = frozenset(["Compress", "NonZero", "Unique"])
"""Operators whose result shapes are known only after evaluation."""

_MOST = 1 << 22
"""Maximum number of constant elements for the evaluation of :data:`_SHAPED_BY_VALUES`."""


@dataclass(frozen=True, kw_only=True)
class ImportedGraph:
    """A Relax module with the origins of its bindings."""

    module: IRModule
    """Converted module."""
    origins: Mapping[str, str]
    """Name of the ONNX node of each named binding."""
    layer_names: Mapping[str, str]
    """Entries of `origins` that identify a layer."""


def to_relax(
    model: ir.Model, where: str, limits: ImportLimits, budget: ImportBudget
) -> ImportedGraph:
    """Import a prepared model; its initializers are moved out of it.

    Parameters
    ----------
    model
        Result of :func:`layoutsel.model.import_prepare.prepare`.
    where
        Name of the model, for messages.
    limits
        Limits of the import.
    budget
        Remaining time, and bytes for constants.

    Raises
    ------
    ModelTooLarge
        If a tensor, or a folded constant, exceeds `limits`.
    UnsupportedModel
        If an operator, or its use, cannot be imported.
    """
    opset = model.graph.opset_imports.get("", 1)
    weights = _taken_weights(model.graph)
    with import_prepare.quiet():
        graph = ir.serde.serialize_graph(model.graph)
    _check_operators(graph.node, where)
    declare_operators()
    importer = _Importer(weights, where, limits, budget)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importer.from_onnx(graph, opset)
    if importer.failure is not None:
        raise importer.failure
    _check_calls(module, importer.origins, where)
    origins = _with_result(module, importer.origins)
    kinds = {node.name: node.op_type for node in graph.node}
    return ImportedGraph(
        module=module,
        origins=origins,
        layer_names={
            binding: name for binding, name in origins.items() if identifies(name, kinds[name])
        },
    )


def _taken_weights(graph: ir.Graph) -> dict[str, ir.TensorProtocol]:
    """Move the initializers out of `graph`, which reference cycles keep in memory for a while."""
    weights = {}
    for name, value in graph.initializers.items():
        weights[name], value.const_value = value.const_value, None
    graph.initializers.clear()
    return weights


def _check_calls(module: IRModule, origins: Mapping[str, str], where: str) -> None:
    """Reject functions of loops, which no later pass can analyse."""
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.call_tir":
                node = origins.get(binding.var.name, binding.var.name)
                raise UnsupportedModel(
                    f"{where}: node {node!r} is imported as loops ({value.args[0].name_hint}); "
                    f"expected operators. "
                    f"Export the model without it, or with constant arguments"
                )


def _with_result(module: IRModule, origins: Mapping[str, str]) -> dict[str, str]:
    """Add the node of the result to `origins`.

    Canonicalisation binds the result under the name of the function's output.
    """
    result = module["main"].body.body
    named = dict(origins)
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if binding.var.same_as(result) and isinstance(binding.value, relax.Var):
                named.setdefault(result.name, origins.get(binding.value.name, ""))
    return {name: node for name, node in named.items() if node}


def _check_operators(nodes: Iterable[NodeProto], where: str) -> None:
    missing = []
    for node in nodes:
        if not import_converters.has_converter(node.op_type, node.domain):
            missing.append(node)
    if not missing:
        return
    first = missing[0]
    others = sorted({node.op_type for node in missing} - {first.op_type})
    also = f" (also unsupported: {', '.join(others)})" if others else ""
    raise UnsupportedModel(
        f"{where}: node {first.name!r} needs operator {first.op_type} of domain "
        f"{first.domain or 'ai.onnx'!r}, for which there is no conversion to Relax{also}. "
        f"Export the model without it, cut the model there, or install a "
        f"package that adds an entry for it ({OPERATORS.group})"
    )


def binding_name(node_name: str) -> str:
    """Convert a node's name to a name of a Relax variable: letters, digits and underscores.

    ``main`` is reserved for the function.
    """
    name = re.sub(r"\W+", "_", node_name).strip("_")
    return name if name and not name[0].isdigit() and name != "main" else f"n_{name}"


_OWN_PACKAGES = ("layoutsel.", "tvm_passes.")
"""Prefixes of the project's own modules."""


def _is_ours(error: Exception) -> bool:
    """True if our own code raised the error, in contrast to TVM's rejection of an argument."""
    trace, name = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return name.startswith(_OWN_PACKAGES)


def _constant_array(value: relax.Expr) -> np.ndarray:
    if isinstance(value, relax.ShapeExpr):
        return np.asarray([int(dim) for dim in value.values], "int64")
    return value.value.numpy()


def _is_small_constant(value: relax.Expr, most: int) -> bool:
    if isinstance(value, relax.ShapeExpr):
        return all(isinstance(dim, tvm.tirx.IntImm) for dim in value.values)
    if not isinstance(value, GenericConst):
        return False
    return int(np.prod(value.value.shape)) <= most


class _Importer(stock.ONNXGraphImporter):
    """TVM's importer with weights as arrays, bindings named after nodes, and located errors."""

    def __init__(
        self,
        weights: dict[str, ir.TensorProtocol],
        where: str,
        limits: ImportLimits,
        budget: ImportBudget,
    ) -> None:
        super().__init__(None, None)
        self._weights = weights
        self._where = where
        self._limits = limits
        self._budget = budget
        self.origins: dict[str, str] = {}
        self.failure: Exception | None = None

    def _parse_graph_initializers(self, graph: GraphProto) -> None:
        for name in list(self._weights):
            self._nodes[name] = constant_in_place(self._weights.pop(name).numpy())

    def _check_for_unsupported_ops(self, graph: GraphProto) -> None:
        """Skip TVM's check: an earlier one has a better message."""

    def _sanitize_name(self, name: str) -> str:
        return str(self._name_supply.fresh_name(binding_name(name)))

    def _construct_nodes(self, graph: GraphProto) -> None:
        """Convert every node.

        After a failure, complete the function all the same: TVM would hide the error otherwise.
        """
        for node in graph.node:
            try:
                self._convert_node(node)
            except Exception as error:
                self.failure = self._located(node, error)
                for value in graph.output:
                    self._nodes[value.name] = relax.const(0)
                return

    def _located(self, node: NodeProto, error: Exception) -> Exception:
        """Add the node to an error.

        The result is a missing feature, unless memory ran out, a limit was exceeded, or layoutsel
        has a bug.
        """
        if isinstance(error, (ModelTooLarge, MemoryError, OSError)):
            return error
        if not isinstance(error, UnsupportedModel) and _is_ours(error):
            fault = ImporterFault(
                f"{self._where}: the import of node {node.name!r} ({node.op_type}) failed by "
                f"a fault of layoutsel: {type(error).__name__}: {error}. Please report it"
            )
            fault.__cause__ = error
            return fault
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        reason = re.sub(r"^\w*(Error|Exception): ", "", reason.strip()) or type(error).__name__
        inputs = ", ".join(
            f"{name}: {getattr(self._nodes.get(name), 'ty', '?')}" for name in node.input if name
        )
        return UnsupportedModel(
            f"{self._where}: node {node.name!r} ({node.op_type}) cannot be imported with inputs "
            f"({inputs}): {reason}. Export the model without it, or with constant arguments"
        )

    def _convert_node(self, node: NodeProto) -> None:
        self._budget.check_time(f"{self._where}: node {node.name!r} ({node.op_type})")
        values = self._evaluated(node)
        if values is not None:
            for output, value in zip(node.output, values, strict=True):
                self._nodes[output] = relax.const(tvm.runtime.tensor(value))
            return
        attributes = self._parse_attr(node.attribute)
        name = binding_name(node.name)
        self.origins.setdefault(name, node.name)
        attributes["tvm_custom"] = {
            "name": node.name,
            "num_outputs": len(node.output),
            "binding": name,
        }
        inputs = stock.onnx_input([self._input(node, value) for value in node.input])
        value = import_converters.convert(
            node.op_type,
            node.domain,
            self.bb,
            inputs,
            attributes,
            [self._nodes, self._params],
            self.opset,
        )
        if isinstance(value, relax.Tuple) and len(node.output) == 1:
            value = value.fields[0]
        self._bind(node, self.bb.normalize(value), name)

    def _evaluated(self, node: NodeProto) -> list[np.ndarray] | None:
        """Evaluate a node with small constant inputs, such as one that computes a shape."""
        inputs = [self._nodes[name] if name else None for name in node.input]
        given = [value for value in inputs if value is not None]
        if node.op_type in _KEPT or not (given or node.op_type == "Constant"):
            return None
        most = _MOST if node.op_type in _SHAPED_BY_VALUES else SMALL
        if not all(_is_small_constant(value, most) for value in given):
            return None
        arrays = [None if value is None else _constant_array(value) for value in inputs]
        return evaluate_within(node, arrays, self.opset, self._budget)

    def _input(self, node: NodeProto, name: str) -> Any:
        """Return the expression of an input; None for an omitted one."""
        if not name:
            return None
        value = self._nodes[name]
        if isinstance(value, relax.ShapeExpr) and node.op_type != "Reshape":
            return constant_of(np.asarray([int(dim) for dim in value.values], "int64"))
        return value

    def _bind(self, node: NodeProto, value: relax.Expr, name: str) -> None:
        outputs = list(node.output)
        if isinstance(value.ty, relax.TupleType) and not isinstance(value, relax.Tuple):
            bundle = self.bb.emit(value, name)
            fields = [relax.TupleGetItem(bundle, index) for index in range(len(value.ty.fields))]
        else:
            fields = list(value.fields) if isinstance(value, relax.Tuple) else [value]
        if len(fields) < len(outputs):
            raise UnsupportedModel(f"it has {len(outputs)} outputs; {len(fields)} are known")
        for position, output in enumerate(outputs):
            if output:
                suffix = f"_{position}" if position else ""
                self._nodes[output] = self._emit(fields[position], name + suffix, node.name)

    def _emit(self, value: relax.Expr, name: str, node_name: str) -> relax.Expr:
        if isinstance(value, (relax.Call, relax.TupleGetItem)):
            value = self.bb.emit(value, name)
            check_type(value.ty, "its result", self._limits)
        if isinstance(value, relax.Var):
            self.origins.setdefault(value.name, node_name)
        return value
