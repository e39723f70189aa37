"""Simplify an ONNX graph before Relax sees it: one operator set, constants folded, every node named."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator

import onnx_ir as ir
from onnx import ModelProto, inliner
from onnx_ir.passes import common
from onnxscript import optimizer, version_converter

from layoutsel.errors import LayoutselError, UnsupportedModel
from layoutsel.model import import_converters, import_resize

_log = logging.getLogger(__name__)

OPSET = 18
"""Older models are converted to this operator set; newer ones stay as they are."""

_COORDINATES_OPSET = 11
"""From here on a Resize says how it takes coordinates; before, what is "asymmetric" now was all there was."""

_CHATTY = ("onnxscript", "onnx_ir", "onnx", "onnx_ir.passes.common")
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
_STRINGS = ir.DataType.STRING


def prepare(model: ModelProto, where: str) -> ir.Model:
    """Simplify `model`, which is left as it is; weights are shared, not copied.

    Raises
    ------
    UnsupportedModel
        If it holds control flow, operators of unknown domains, or tensors of strings.
    """
    with quiet():
        prepared = ir.serde.deserialize_model(model)
        _attempt("convert the operator set", where, lambda: _convert_version(prepared))
        _attempt("fold constants", where, lambda: _simplify(prepared))
        if any(map(_lacks_converter, prepared.graph)):
            _attempt("expand functions", where, lambda: _expand_functions(prepared))
            _attempt("fold constants", where, lambda: _simplify(prepared))
    name_nodes(prepared)
    _check(prepared, where)
    return prepared


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the ONNX libraries' warnings away from the user."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _attempt(what: str, where: str, step: Callable[[], None]) -> None:
    """Run a simplification that a model can do without."""
    try:
        step()
    except LayoutselError:
        raise
    except Exception as error:
        _log.info("%s: could not %s: %s", where, what, error)


def _convert_version(model: ir.Model) -> None:
    version = model.graph.opset_imports.get("", OPSET)
    if version < OPSET:
        version_converter.convert_version(model, OPSET, fallback=True)
    if version < _COORDINATES_OPSET:
        for node in model.graph:
            if node.op_type == "Resize" and "coordinate_transformation_mode" not in node.attributes:
                node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
                node.attributes.add(ir.AttrString("nearest_mode", import_resize.SIMPLE))


def _simplify(model: ir.Model) -> None:
    """Inline functions and fold what shapes decide; rewriting operators is left to the Relax passes."""
    common.InlinePass()(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    for clean in (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.CommonSubexpressionEliminationPass(),
        common.NameFixPass(),
    ):
        clean(model)


def _lacks_converter(node: ir.Node) -> bool:
    return node.domain == "" and not import_converters.has_converter(node.op_type)


def _expand_functions(model: ir.Model) -> None:
    """Replace operators that cannot be converted by what ONNX defines them to be; weights stay aside."""
    common.AddDefaultAttributesPass()(model)
    wanted = sorted({node.op_type for node in model.graph if _lacks_converter(node)})
    graph = model.graph
    weights = {name: value.const_value for name, value in graph.initializers.items()}
    for value in graph.initializers.values():
        value.shape, value.type = value.const_value.shape, ir.TensorType(value.const_value.dtype)
    real_inputs = len(graph.inputs)
    graph.inputs.extend(graph.initializers.values())
    graph.initializers.clear()
    expanded = inliner.inline_selected_functions(
        ir.serde.serialize_model(model),
        [("", name) for name in wanted],
        inline_schema_functions=True,
    )
    model.graph = ir.serde.deserialize_model(expanded).graph
    for value in model.graph.inputs[real_inputs:]:
        value.const_value = weights[value.name]
    constants = list(model.graph.inputs[real_inputs:])
    del model.graph.inputs[real_inputs:]
    for value in constants:
        model.graph.register_initializer(value)


def name_nodes(model: ir.Model) -> None:
    """Give every node a unique name, after its first output where it has none."""
    taken: set[str] = set()
    for node in model.graph:
        wanted = node.name or node.outputs[0].name or node.op_type
        name, suffix = wanted, 1
        while name in taken:
            name, suffix = f"{wanted}_{suffix}", suffix + 1
        taken.add(name)
        node.name = name


def _check(model: ir.Model, where: str) -> None:
    for node in model.graph:
        if node.op_type in _CONTROL_FLOW and node.domain == "":
            raise UnsupportedModel(
                f"{where}: node {node.name!r} ({node.op_type}) is control flow, decided by data at run time; "
                f"expected a straight-line graph. Export the model with that branch or loop fixed"
            )
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.dtype == _STRINGS:
                raise UnsupportedModel(
                    f"{where}: node {node.name!r} ({node.op_type}) uses the string tensor {value.name!r}; "
                    f"expected numbers. Do text processing outside the model"
                )
