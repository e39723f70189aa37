"""Inference of the type and shape of every value of an ONNX graph, before any large computation.

Each node is checked against ONNX's schema, strict shape inference, the operator table's rules, and
the limits. Small constants that shapes are computed from are evaluated on the way, so that sizes
are known however they are expressed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir
from onnx import NodeProto, TypeProto, helper, numpy_helper, shape_inference

from layoutsel.errors import InvalidModel, ModelTooLarge
from layoutsel.model import import_converters
from layoutsel.model.import_facts import (
    attribute_values,
    facts_bytes,
    facts_of_stored,
    facts_of_type,
    facts_text,
    given_text,
    has_small_value,
    type_of,
)
from layoutsel.model.import_rules import broken_rule
from layoutsel.model.import_shape_values import detached, with_value
from tvm_passes.limits import HINT, ImportLimits, format_bytes
from tvm_passes.onnx.facts import NodeFacts, TensorFacts
from tvm_passes.operators import find_onnx

_ADVICE = "Correct the model or export it again"

_EXCEPTIONS = (
    onnx.checker.ValidationError,
    shape_inference.InferenceError,
    ValueError,
    IndexError,
    RuntimeError,
)
"""Exceptions of ONNX's C++ code for an invalid node; the last three are of the standard library."""

_WITH_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators with nested graphs, which are imported only if constants decide them."""

_USED_ANYWAY = frozenset({"GroupNormalization", "LayerNormalization"})
"""Operators that are in use outside their operator sets; their result is like their first input.

Exporters write them, and engines run them, in operator sets that withdrew or lack them.
"""

_EXPLAINED_BETTER = frozenset({"Einsum"})
"""Operators whose converters check shapes with clearer messages."""


def infer_types(model: ir.Model, where: str, limits: ImportLimits) -> None:
    """Set the inferred type and shape of every value of `model`, in place.

    Stated types and shapes of results are dropped.

    Raises
    ------
    InvalidModel
        If a node contradicts the ONNX specification.
    ModelTooLarge
        If a result, or all inputs or outputs together, are larger than `limits` allow.
    """
    walk = _Walk(model, where, limits)
    for node in model.graph:
        walk.visit(node)
    walk.check_totals()


class _Walk:
    """Walk over a graph that collects facts about each value."""

    def __init__(self, model: ir.Model, where: str, limits: ImportLimits) -> None:
        self._where = where
        self._limits = limits
        self._opsets = {
            "" if domain == "ai.onnx" else domain: version
            for domain, version in model.opset_imports.items()
        }
        self._graph = model.graph
        self._facts: dict[ir.Value, TensorFacts] = {}
        for value in model.graph.inputs:
            self._learn(value, _stated(value), f"input {value.name!r}")
        for value in model.graph.initializers.values():
            self._facts[value] = facts_of_stored(value.const_value)

    def visit(self, node: ir.Node) -> None:
        """Check a node and infer its results; its inputs must have been visited."""
        for value in node.outputs:
            value.shape = value.type = None
        what = f"{self._where}: node {node.name or _first_name(node)!r} ({node.op_type})"
        if (
            node.op_type == "Constant"
            and node.domain in ("", "ai.onnx")
            and "value" in node.attributes
        ):
            self._facts[node.outputs[0]] = facts_of_stored(node.attributes["value"].as_tensor())
            return
        inputs = [self._facts.get(value) if value is not None else None for value in node.inputs]
        results = self._inferred(node, inputs, what)
        if results is None:
            return
        facts = with_value(node, inputs, results, self._opsets.get("", 0))
        for value, result in zip(node.outputs, facts, strict=True):
            if result is not None:
                self._learn(value, result, f"{what}: result {value.name!r}")

    def check_totals(self) -> None:
        """Reject inputs or outputs that are too large in total."""
        for what, values in (("inputs", self._graph.inputs), ("outputs", self._graph.outputs)):
            sizes = [facts_bytes(facts) for value in values if (facts := self._facts.get(value))]
            self._check_bytes(sum(filter(None, sizes)), f"{self._where}: all {what} together")

    def _learn(self, value: ir.Value, facts: TensorFacts | None, what: str) -> None:
        if facts is None:
            return
        self._check_bytes(facts_bytes(facts) or 0, f"{what} of {facts_text(facts)}")
        self._facts[value] = facts
        if facts.dtype:
            value.type = ir.TensorType(ir.DataType(facts.dtype))
        if facts.shape is not None:
            value.shape = ir.Shape(facts.shape)

    def _check_bytes(self, nbytes: int, what: str) -> None:
        if nbytes > self._limits.tensor_bytes:
            raise ModelTooLarge(
                f"{what}: got {format_bytes(nbytes)}; expected at most "
                f"{format_bytes(self._limits.tensor_bytes)} (limit 'tensor'). {HINT}"
            )

    def _inferred(
        self, node: ir.Node, inputs: Sequence[TensorFacts | None], what: str
    ) -> list[TensorFacts | None] | None:
        """Infer the results of a node of a known operator; None if ONNX does not know them."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        version = self._opsets.get(domain, 0)
        known = onnx.defs.has(node.op_type, version, domain)
        if (
            node.op_type in _USED_ANYWAY
            and not domain
            and not (known and _is_current(node, version))
        ):
            data = inputs[0] if inputs else None
            first = data and TensorFacts(shape=data.shape, dtype=data.dtype)
            return [first, *[None] * (len(node.outputs) - 1)]
        if not known:
            self._check_age(node, domain, what)
            return self._by_entry(node, inputs, what)
        if node.op_type in _WITH_GRAPHS:
            return None
        schema = onnx.defs.get_schema(node.op_type, version, domain)
        proto = detached(node)
        complete = not schema.deprecated and all(
            facts is not None
            for facts, value in zip(inputs, node.inputs, strict=True)
            if value is not None
        )
        try:
            types = (
                self._run_inference(schema, proto, inputs)
                if complete
                else _verified(proto, self._opsets)
            )
        except _EXCEPTIONS as error:
            explained = node.op_type in _EXPLAINED_BETTER
            if not _can_import(node, schema) or (
                explained and isinstance(error, shape_inference.InferenceError)
            ):
                return None  # rejected later, unless it is folded
            raise InvalidModel(f"{what}{given_text(inputs)}: {_reason(error)}. {_ADVICE}") from None
        results = [facts_of_type(types.get(name)) for name in proto.output]
        facts = NodeFacts(
            op=node.op_type,
            domain=domain,
            version=version,
            attributes=attribute_values(proto),
            inputs=tuple(inputs),
            outputs=tuple(results),
        )
        self._check_rules(facts, what)
        return results

    def _by_entry(
        self, node: ir.Node, inputs: Sequence[TensorFacts | None], what: str
    ) -> list[TensorFacts | None] | None:
        """Infer the results of a node by its operator's entry; None without one."""
        entry = find_onnx(node.op_type, node.domain)
        if entry is None:
            return None
        facts = NodeFacts(
            op=node.op_type,
            domain=node.domain,
            version=self._opsets.get(node.domain, 0),
            attributes=attribute_values(detached(node)),
            inputs=tuple(inputs),
            outputs=(None,) * len(node.outputs),
        )
        pairs = zip(inputs, node.inputs, strict=True)
        is_complete = all(known is not None for known, value in pairs if value is not None)
        if entry.infer is not None and is_complete:
            facts = replace(facts, outputs=tuple(entry.infer(facts)))
        self._check_rules(facts, what)
        return list(facts.outputs)

    def _check_rules(self, node: NodeFacts, what: str) -> None:
        problem = broken_rule(node)
        if problem is not None:
            raise InvalidModel(f"{what}{given_text(node.inputs)}: {problem}. {_ADVICE}")

    def _check_age(self, node: ir.Node, domain: str, what: str) -> None:
        """Reject an operator that is newer than the imported operator set."""
        if onnx.defs.has(node.op_type, domain):
            since = onnx.defs.get_schema(node.op_type, domain).since_version
            raise InvalidModel(
                f"{what}: got operator set {self._opsets.get(domain)}; expected {since} or later, "
                f"which has this operator. {_ADVICE}"
            )

    def _run_inference(
        self, schema: onnx.defs.OpSchema, proto: NodeProto, inputs: Sequence[TensorFacts | None]
    ) -> dict[str, TypeProto]:
        known = {name: facts for name, facts in zip(proto.input, inputs, strict=True) if facts}
        return shape_inference.infer_node_outputs(
            schema,
            proto,
            {name: type_of(facts) for name, facts in known.items()},
            {
                name: numpy_helper.from_array(facts.value, name)
                for name, facts in known.items()
                if has_small_value(facts)
            },
            opset_imports=[helper.make_opsetid(d, v) for d, v in self._opsets.items()],
        )


def _is_current(node: ir.Node, version: int) -> bool:
    return not onnx.defs.get_schema(node.op_type, version, "").deprecated


def _can_import(node: ir.Node, schema: onnx.defs.OpSchema) -> bool:
    known = import_converters.has_converter(node.op_type, node.domain)
    return known or schema.has_function or schema.has_context_dependent_function


def _first_name(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "") or ""


def _verified(proto: NodeProto, opsets: Mapping[str, int]) -> dict[str, TypeProto]:
    """Check a node against its schema alone, if types of its inputs are unknown."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = dict(opsets)
    onnx.checker.check_node(proto, context)
    return {}


def _stated(value: ir.Value) -> TensorFacts | None:
    """Return the facts of an input, whose shape is already fixed."""
    if value.dtype is None:
        return None
    dims = None if value.shape is None else tuple(_dim(dim) for dim in value.shape)
    return TensorFacts(shape=dims, dtype=int(value.dtype))


def _dim(dim: int | ir.SymbolicDim) -> int | None:
    return dim if isinstance(dim, int) else None


def _reason(error: Exception) -> str:
    """Return the first line of an ONNX message without its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return (
        text.removeprefix("[ShapeInferenceError] ")
        .removeprefix("[TypeInferenceError] ")
        .rstrip(".")
    )
