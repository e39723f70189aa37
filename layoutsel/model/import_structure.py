"""Checks of an ONNX model's structure before any computation: names, tensors, order, nesting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto

from layoutsel.errors import InvalidModel, UnsupportedModel
from layoutsel.model.import_expansion import check_expansion, domain_of, nested_graphs
from layoutsel.model.import_tensors import check_texts, tensor_problem
from tvm_passes.limits import ImportLimits

_OLDEST_FORMAT = 3
"""Oldest supported version of ONNX's format."""
_NEWEST_OPSETS: Mapping[str, int] = {
    "": onnx.defs.onnx_opset_version(),
    "ai.onnx.ml": onnx.defs.onnx_ml_opset_version(),
}
"""Newest operator set of each domain that ONNX versions."""

_ADVICE = "Export the model again"


def check_model(model: ModelProto, where: str, limits: ImportLimits | None = None) -> None:
    """Reject a message that is not a valid model, or that expands beyond `limits`.

    Raises
    ------
    InvalidModel
        If it contradicts the ONNX specification; the message names the node or the tensor.
    UnsupportedModel
        If its weights are sparse, or it is newer than the ``onnx`` package.
    ModelTooLarge
        If it has more nodes, or deeper nesting, than `limits` allow.
    """
    _check_envelope(model, where)
    check_expansion(model, where, limits or ImportLimits())
    check_texts(model, where)
    opsets = _checked_opsets(model.opset_import, where)
    functions = {(domain_of(f), f.name) for f in model.functions}
    graph = model.graph
    _check_tensors(graph, where)
    given = [value.name for value in graph.input]
    _Scope(where, opsets, functions).check(graph, given, [value.name for value in graph.output])
    if len(functions) < len(model.functions) and not any(f.overload for f in model.functions):
        raise InvalidModel(f"{where}: got two functions of one name; expected one. {_ADVICE}")
    for function in model.functions:
        inside = f"{where}: function {function.name!r}"
        known = _checked_opsets(function.opset_import, inside)
        scope = _Scope(inside, known, functions, in_function=True)
        scope.check(function, list(function.input), list(function.output))


def node_text(node: NodeProto) -> str:
    """Write the name of a node, or of its first result, and its operator."""
    name = node.name or next(iter(node.output), "")
    return f"node {name!r} ({node.op_type})"


def _check_envelope(model: ModelProto, where: str) -> None:
    graph = model.graph
    if not graph.node or not graph.output or not model.opset_import:
        raise InvalidModel(
            f"{where}: got a model with {len(graph.node)} nodes, {len(graph.output)} outputs and "
            f"{len(model.opset_import)} operator sets; expected at least one of each. "
            f"Is it an ONNX file?"
        )
    if model.ir_version < _OLDEST_FORMAT:
        raise InvalidModel(
            f"{where}: got ONNX IR version {model.ir_version}; "
            f"expected {_OLDEST_FORMAT} or later. Export it again"
        )
    if model.ir_version > onnx.IR_VERSION:
        raise UnsupportedModel(
            f"{where}: got ONNX IR version {model.ir_version}; expected at most {onnx.IR_VERSION}, "
            f"the newest of onnx {onnx.__version__}. Export it for an older version"
        )
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise UnsupportedModel(f"{where}: weight {name!r} is sparse; expected dense weights")


def _checked_opsets(imports: Iterable[OperatorSetIdProto], where: str) -> dict[str, int]:
    """Check the operator sets, and return the version of each domain."""
    opsets: dict[str, int] = {}
    for entry in imports:
        domain, version = domain_of(entry), entry.version
        newest = _NEWEST_OPSETS.get(domain)
        shown = domain or "ai.onnx"
        if version < 1:
            raise InvalidModel(
                f"{where}: got operator set {version} of domain {shown!r}; "
                f"expected 1 or later. {_ADVICE}"
            )
        if newest is not None and version > newest:
            raise UnsupportedModel(
                f"{where}: got operator set {version} of domain {shown!r}; expected at most "
                f"{newest}, the newest of onnx {onnx.__version__}. "
                f"Export it for an older operator set"
            )
        if opsets.setdefault(domain, version) != version:
            raise InvalidModel(
                f"{where}: got operator sets {opsets[domain]} and {version} of domain {shown!r}; "
                f"expected one. {_ADVICE}"
            )
    return opsets


def _check_tensors(graph: GraphProto, where: str) -> None:
    for tensor in graph.initializer:
        problem = tensor_problem(tensor)
        if problem is not None:
            raise InvalidModel(f"{where}: weight {tensor.name!r}: {problem}. {_ADVICE}")


@dataclass(frozen=True)
class _Scope:
    """Names that a graph or a function may use."""

    where: str
    """Location of the graph, for messages."""
    opsets: Mapping[str, int]
    """Version of each imported domain."""
    functions: set[tuple[str, str]]
    """Domain and name of each function of the model."""
    outer: frozenset[str] = frozenset()
    """Values of the enclosing graphs, which inner ones may hide."""
    in_function: bool = False
    """True inside a function, whose attributes may be references."""

    def check(
        self, body: GraphProto | onnx.FunctionProto, inputs: list[str], outputs: list[str]
    ) -> None:
        """Reject duplicate or missing definitions, cycles, and invalid nodes."""
        defined = set(self._defined_once(body, inputs))
        visible = frozenset(defined | self.outer)
        for node in body.node:
            self._check_node(node, visible)
        for name in outputs:
            if name not in visible:
                raise InvalidModel(
                    f"{self.where}: nothing computes the output {name!r}. Export it again"
                )
        cycle = _node_of_cycle(body.node)
        if cycle is not None:
            raise InvalidModel(
                f"{self.where}: {node_text(cycle)} needs its own result: got a cycle through "
                f"{cycle.output[0]!r}; expected a graph without cycles. {_ADVICE}"
            )

    def _defined_once(
        self, body: GraphProto | onnx.FunctionProto, inputs: list[str]
    ) -> Iterator[str]:
        """Yield the names of all values; each must have one defining input, weight or node."""
        makers: dict[str, str] = {}
        weights = [t.name for t in body.initializer] if isinstance(body, GraphProto) else []
        for name in inputs:
            self._claim(makers, name, "an input")
        for name in weights:
            # In old files, each weight is an input as well.
            if makers.get(name) == "an input":
                makers.pop(name)
            self._claim(makers, name, "a weight")
        for node in body.node:
            for name in filter(None, node.output):
                self._claim(makers, name, node_text(node))
        yield from makers

    def _claim(self, makers: dict[str, str], name: str, maker: str) -> None:
        if not name:
            raise InvalidModel(f"{self.where}: {maker} has no name; expected one. {_ADVICE}")
        other = makers.get(name)
        if other is not None:
            raise InvalidModel(
                f"{self.where}: tensor {name!r} is defined twice: got {other} and {maker}; "
                f"expected one definition. {_ADVICE}"
            )
        makers[name] = maker

    def _check_node(self, node: NodeProto, visible: frozenset[str]) -> None:
        for name in node.input:
            if name and name not in visible:
                raise InvalidModel(
                    f"{self.where}: {node_text(node)} reads tensor {name!r}, which nothing "
                    f"defines; expected an input, an initializer or another node's output"
                )
        problem = next(filter(None, (find(self, node) for find in _NODE_PROBLEMS)), None)
        if problem is not None:
            raise InvalidModel(f"{self.where}: {node_text(node)}: {problem}. {_ADVICE}")
        for graph in nested_graphs(node):
            inside = f"{self.where}: {node_text(node)}"
            _check_tensors(graph, inside)
            scope = _Scope(inside, self.opsets, self.functions, visible, self.in_function)
            scope.check(graph, [v.name for v in graph.input], [v.name for v in graph.output])


def _operator_problem(scope: _Scope, node: NodeProto) -> str | None:
    if not node.op_type:
        return "got no operator; expected a name, such as Relu"
    domain = domain_of(node)
    if (domain, node.op_type) in scope.functions or domain in scope.opsets:
        return None
    known = ", ".join(repr(name or "ai.onnx") for name in scope.opsets)
    return (
        f"got an operator of domain {domain or 'ai.onnx'!r}; "
        f"expected one that the model imports: {known}"
    )


def _result_problem(_scope: _Scope, node: NodeProto) -> str | None:
    if any(node.output):
        return None
    return f"got no results (inputs {', '.join(node.input) or 'none'}); expected at least one"


def _attribute_problem(scope: _Scope, node: NodeProto) -> str | None:
    seen: set[str] = set()
    for attribute in node.attribute:
        name = attribute.name
        if not name or name in seen:
            return f"got attribute {name!r} {'twice' if name else 'without a name'}; expected once"
        seen.add(name)
        problem = _kind_problem(attribute)
        if problem is not None:
            return f"attribute {name}: {problem}"
        if node.op_type != "Constant" and not _is_text(attribute.s):
            return f"attribute {name}: got {attribute.s!r}; expected UTF-8"
        if attribute.ref_attr_name and not scope.in_function:
            return (
                f"attribute {name}: got a reference to {attribute.ref_attr_name!r}; "
                "expected a value"
            )
        for tensor in attribute_tensors(attribute):
            problem = tensor_problem(tensor)
            if problem is not None:
                return f"attribute {name}: {problem}"
    return None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


_FIELDS: Mapping[int, str] = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
"""Protocol-buffer field of the value of each kind of attribute."""


def _kind_problem(attribute: AttributeProto) -> str | None:
    """Describe a contradiction between the kind of an attribute and its value; None without one."""
    wanted = _FIELDS.get(attribute.type)
    if wanted is None:
        return f"got kind {attribute.type}; expected one of ONNX's kinds, such as 7 (ints)"
    filled = {field.name for field, _ in attribute.ListFields()} & set(_FIELDS.values())
    if filled - {wanted}:
        return (
            f"got a value in {min(filled - {wanted})!r}; expected it in {wanted!r}, as of its kind"
        )
    if wanted in ("t", "g", "sparse_tensor", "tp") and not filled and not attribute.ref_attr_name:
        return f"got no value; expected one in {wanted!r}"
    return None


_NODE_PROBLEMS: tuple[Callable[[_Scope, NodeProto], str | None], ...] = (
    _operator_problem,
    _result_problem,
    _attribute_problem,
)
"""Checks of one node; each returns "got ...; expected ..." or None."""


def attribute_tensors(attribute: AttributeProto) -> list[onnx.TensorProto]:
    """List the dense tensors of an attribute."""
    single = [attribute.t] if attribute.HasField("t") else []
    return [*single, *attribute.tensors]


def _reads(node: NodeProto) -> set[str]:
    """List the values that a node or its nested graphs read."""
    names = set(node.input)
    for graph in nested_graphs(node):
        inner = {value.name for value in graph.output}.union(*map(_reads, graph.node))
        made = {name for each in graph.node for name in each.output}
        made |= {value.name for value in graph.input} | {w.name for w in graph.initializer}
        names |= inner - made
    return names


def _node_of_cycle(nodes: Iterable[NodeProto]) -> NodeProto | None:
    """Find a node on a cycle, for nodes in any order; None without a cycle."""
    ordered = list(nodes)
    maker = {name: index for index, node in enumerate(ordered) for name in node.output if name}
    needs = [{maker[name] for name in _reads(node) if name in maker} for node in ordered]
    if all(not need or max(need) < index for index, need in enumerate(needs)):
        return None
    waiting = [len(need) for need in needs]
    users: dict[int, list[int]] = {}
    for index, need in enumerate(needs):
        for other in need:
            users.setdefault(other, []).append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    while ready:
        done = ready.pop()
        for user in users.get(done, ()):
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    left = {index for index, count in enumerate(waiting) if count}
    return ordered[_on_cycle(left, needs)] if left else None


def _on_cycle(left: set[int], needs: list[set[int]]) -> int:
    """Walk backwards through the remaining nodes until one repeats."""
    seen: set[int] = set()
    index = min(left)
    while index not in seen:
        seen.add(index)
        index = min(needs[index] & left)
    return index
