"""Simplification of an ONNX graph: one operator set, folded constants, named nodes."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, inliner
from onnx_ir.passes import common
from onnxscript import optimizer, version_converter

from layoutsel.errors import ControlFlow, InvalidModel, LayoutselError, UnsupportedModel
from layoutsel.model import import_converters
from layoutsel.model.import_evaluation import BOUNDED, padded_elements
from layoutsel.model.import_facts import REAL_NUMBERS
from layoutsel.model.import_types import infer_types
from tvm_passes.limits import ImportBudget, ImportLimits
from tvm_passes.normalize.fold_constants import GROWTH_BYTES
from tvm_passes.onnx import resize

_log = logging.getLogger(__name__)

OPSET = 18
"""Operator set that older models are converted to; newer ones stay unchanged."""

_COORDINATES_OPSET = 11
"""First operator set in which a Resize states its coordinate mode; before, it is "asymmetric"."""

_CHATTY = ("onnxscript", "onnx_ir", "onnx", "onnx_ir.passes.common")
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
_STRINGS = ir.DataType.STRING


def prepare(
    model: ModelProto,
    where: str,
    limits: ImportLimits | None = None,
    budget: ImportBudget | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> ir.Model:
    """Simplify a copy of `model` that shares its weights.

    Parameters
    ----------
    model
        Model to simplify.
    where
        Name of the model, for messages.
    limits
        Limits of the import.
    budget
        Remaining time, and bytes for constants; by default those of `limits`.
    weights
        Values of initializers that `model` only names.

    Raises
    ------
    InvalidModel
        If a node contradicts the ONNX specification.
    ModelTooLarge
        If a tensor, or a folded constant, exceeds `limits`.
    UnsupportedModel
        If the model has control flow, operators of unknown domains, or tensors of strings.
    """
    limits = limits or ImportLimits()
    budget = budget or ImportBudget(limits)
    simplify = _Simplifier(budget)
    with quiet():
        prepared = _deserialized(model, where)
        for name, array in (weights or {}).items():
            prepared.graph.initializers[name].const_value = ir.tensor(array, name=name)
        _inline(prepared, where)
        prepared.graph.sort()
        infer_types(prepared, where, limits)
        has_branches = any(map(_is_control_flow, prepared.graph))
        _attempt("convert the operator set", where, budget, lambda: _convert_version(prepared))
        _attempt("fold constants", where, budget, lambda: simplify(prepared))
        if any(map(_lacks_converter, prepared.graph)):
            _attempt("expand functions", where, budget, lambda: _expand_functions(prepared))
            _attempt("fold constants", where, budget, lambda: simplify(prepared))
        if has_branches:
            # Branches on constants are part of the graph now.
            infer_types(prepared, where, limits)
    name_nodes(prepared)
    _check(prepared, where)
    return prepared


def _deserialized(model: ModelProto, where: str) -> ir.Model:
    try:
        return ir.serde.deserialize_model(model)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        # Structure and tensors were checked before, so this is another kind of damage.
        reason = str(_root_cause(error)).splitlines() or [type(error).__name__]
        raise InvalidModel(
            f"{where}: the model is damaged: {reason[0]}. Export or download it again"
        ) from error


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _inline(model: ir.Model, where: str) -> None:
    """Replace function calls by the bodies of the functions."""
    try:
        common.InlinePass()(model)
    except (ValueError, ir.passes.PassError) as error:
        reason = str(_root_cause(error)).splitlines()[0]
        raise UnsupportedModel(
            f"{where}: its functions cannot be expanded: {reason}. "
            "Export the model without functions"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of the ONNX libraries within the context."""
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


def _attempt(what: str, where: str, budget: ImportBudget, step: Callable[[], None]) -> None:
    """Run an optional simplification while time is left; a failure is only logged."""
    budget.check_time(f"{where}: cannot {what}")
    try:
        step()
    except (LayoutselError, MemoryError, OSError):
        raise
    except Exception as error:
        _reraise_own(error)
        _log.info("%s: could not %s: %s", where, what, error)


def _reraise_own(error: BaseException) -> None:
    """Raise the layoutsel error that a library wrapped in its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (LayoutselError, MemoryError)):
            raise cause
        cause = cause.__cause__


def _convert_version(model: ir.Model) -> None:
    version = model.graph.opset_imports.get("", OPSET)
    if version < OPSET:
        version_converter.convert_version(model, OPSET, fallback=True)
    if version < _COORDINATES_OPSET:
        for node in model.graph:
            if node.op_type == "Resize" and "coordinate_transformation_mode" not in node.attributes:
                node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
                node.attributes.add(ir.AttrString("nearest_mode", resize.SIMPLE))


class _Simplifier:
    """Simplifier that folds shapes and small constants; Relax passes rewrite operators later."""

    def __init__(self, budget: ImportBudget) -> None:
        self._budget = budget

    def __call__(self, model: ir.Model) -> None:
        common.InlinePass()(model)
        optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=self._may_fold)
        for clean in (
            common.IdentityEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.CommonSubexpressionEliminationPass(),
            common.NameFixPass(),
        ):
            clean(model)

    def _may_fold(self, node: ir.Node) -> bool | None:
        """Decide whether the pass may fold a node.

        Returns
        -------
        bool or None
            False if the result is of unknown size or much larger than the inputs; None to let the
            pass decide.
        """
        if node.op_type in BOUNDED:
            return None
        sizes = [_nbytes(value.shape, value.dtype) for value in node.outputs]
        known = [size for size in sizes if size is not None]
        constants = [value.const_value for value in node.inputs if value is not None]
        given = sum(constant.nbytes for constant in constants if constant is not None)
        if len(known) < len(sizes) or max(sum(known), _padded(node)) > given + GROWTH_BYTES:
            return False
        self._budget.take(sum(known) - given, f"node {node.name!r} ({node.op_type})")
        return None


def _padded(node: ir.Node) -> int:
    """Compute the size of the padded constant input of a convolution or pooling, bytes."""
    pads, data = node.attributes.get("pads"), node.inputs[0] if node.inputs else None
    constant = data.const_value if data is not None else None
    if pads is None or constant is None:
        return 0
    return padded_elements(pads.as_ints(), constant.shape.numpy()) * constant.dtype.bitwidth // 8


def _nbytes(shape: ir.Shape | None, dtype: ir.DataType | None) -> int | None:
    """Compute the size of a tensor, bytes; None if it is unknown."""
    if shape is None or dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING):
        return None
    dims = [dim for dim in shape if isinstance(dim, int)]
    return math.prod(dims) * dtype.bitwidth // 8 if len(dims) == len(shape) else None


def _is_control_flow(node: ir.Node) -> bool:
    return node.op_type in _CONTROL_FLOW and node.domain == ""


def _lacks_converter(node: ir.Node) -> bool:
    return node.domain == "" and not import_converters.has_converter(node.op_type)


def _expand_functions(model: ir.Model) -> None:
    """Replace operators without a converter by their function bodies, without copying weights."""
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
    """Give every node a unique name, by default that of its first output."""
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
        if _is_control_flow(node):
            raise ControlFlow(
                f"{where}: node {node.name!r} ({node.op_type}) is control flow, decided by data at "
                f"run time; expected a straight-line graph. "
                f"Export the model with that branch or loop fixed"
            )
        for value in filter(None, (*node.inputs, *node.outputs)):
            if value.dtype == _STRINGS:
                raise UnsupportedModel(
                    f"{where}: node {node.name!r} ({node.op_type}) uses the string tensor "
                    f"{value.name!r}; expected numbers. Do text processing outside the model"
                )
            if value.dtype is not None and value.dtype not in REAL_NUMBERS:
                raise UnsupportedModel(
                    f"{where}: node {node.name!r} ({node.op_type}) uses tensor {value.name!r} of "
                    f"{value.dtype.name.lower()}; expected real numbers of 8 to 64 bits. "
                    f"Cast it in the model"
                )
