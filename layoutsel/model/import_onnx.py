"""Import of a network: reading, fixing of shapes, conversion to normalised Relax."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper
from tvm import relax
from tvm.ir import IRModule

from layoutsel.device.signature import ValueRange
from layoutsel.errors import InvalidModel, InvalidShape, UnsupportedModel
from layoutsel.model import (
    import_load,
    import_prepare,
    import_relax,
    import_shapes,
    import_structure,
)
from layoutsel.model.import_external import refuse_external_data
from layoutsel.model.import_limits import check_module
from layoutsel.model.input_ranges import input_ranges
from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, static_shape, tensor_types
from tvm_passes.limits import ImportBudget, ImportLimits
from tvm_passes.normalize import normalize

Source: TypeAlias = str | os.PathLike[str] | ModelProto | IRModule
"""A path or name of an ONNX model, a loaded one, or a Relax module."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a model."""

    name: str
    """Name in the ONNX model."""
    shape: tuple[int, ...]
    """Static shape."""
    dtype: str
    """Element type in numpy's spelling, such as ``float32``."""
    ranges: tuple[ValueRange, ...] = ()
    """Legal values of elements that the network reads as indices."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """An ONNX model that was read and checked, before its import."""

    name: str
    """Name of the model, from its file or graph."""
    proto: ModelProto
    """The model as ONNX's protocol buffer."""
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Values of initializers that `proto` only names."""
    is_shared: bool = False
    """True if the caller owns `proto`, which must then stay unchanged."""


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A network, ready to be partitioned."""

    name: str
    """Name of the model."""
    module: IRModule
    """Normalised Relax (stage 0): `main` with static shapes, weights as constants."""
    inputs: tuple[TensorSpec, ...]
    """Inputs in the order of the parameters of `main`."""
    outputs: tuple[TensorSpec, ...]
    """Outputs in the order of the result's fields; a single result of `main` is not a tuple."""
    onnx: ModelProto | None
    """The ONNX model with fixed shapes, for a reference engine; None for a Relax module."""
    content_hash: str
    """SHA-256 over structure, shapes and weights, in hexadecimal."""
    origins: Mapping[str, str]
    """Name of the ONNX node of each binding of `main` that has one."""
    layer_names: Mapping[str, str]
    """Entries of `origins` that identify a layer, in contrast to an exporter's numbers."""


def import_model(
    source: Source,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    allow_external_links: bool = False,
    limits: ImportLimits | None = None,
) -> ImportedModel:
    """Import a network.

    Parameters
    ----------
    source
        Path of an ONNX file, the name of a model of the zoos, such as ``light:resnet50``, a loaded
        ONNX model or a Relax module; it is not changed.
    shapes
        Shape of each input that has dynamic dimensions.
    allow_external_links
        True to follow links among a file's external data out of its folder.
    limits
        Limits of the import.

    Raises
    ------
    InvalidModel
        If `source` cannot be read, or contradicts the ONNX specification.
    ModelTooLarge
        If the model needs more than `limits` allow.
    InvalidShape
        If `shapes` does not fit the model, or leaves a dimension open.
    UnsupportedModel
        If a part of the model cannot be imported.
    """
    if isinstance(source, IRModule):
        return _import_relax(source, shapes, limits or ImportLimits())
    loaded = load(source, allow_external_links=allow_external_links, limits=limits)
    return import_loaded(loaded, shapes=shapes, limits=limits)


def load(
    source: str | os.PathLike[str] | ModelProto,
    *,
    allow_external_links: bool = False,
    limits: ImportLimits | None = None,
) -> LoadedModel:
    """Read and check an ONNX model; parameters and errors as in :func:`import_model`."""
    if isinstance(source, ModelProto):
        name = source.graph.name or "model"
        refuse_external_data(source, name)
        import_structure.check_model(source, name, limits)
        return LoadedModel(name=name, proto=source, is_shared=True)
    model = import_load.load_model(source, allow_external_links=allow_external_links, limits=limits)
    return LoadedModel(name=import_load.model_name(source), proto=model)


def import_loaded(
    loaded: LoadedModel,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    limits: ImportLimits | None = None,
) -> ImportedModel:
    """Import a result of :func:`load`; parameters and errors as in :func:`import_model`.

    Unchanged constants share the memory of `loaded`'s weights.
    """
    limits = limits or ImportLimits()
    model, name = loaded.proto, loaded.name
    if loaded.is_shared and (shapes or import_shapes.needs_fixing(model)):
        model = _copied(model)
    import_shapes.fix_inputs(model, shapes)
    import_shapes.fix_orders(model)
    content_hash = _content_hash(model, loaded.weights)
    budget = ImportBudget(limits)
    prepared = import_prepare.prepare(model, name, limits, budget, loaded.weights)
    ranges = input_ranges(prepared)
    imported = import_relax.to_relax(prepared, name, limits, budget)
    module = normalize(imported.module, budget)
    main = module["main"]
    inputs = _specs([value.name for value in model.graph.input], main.params, name)
    outputs = _output_specs([value.name for value in model.graph.output], main, name)
    _check_declared(model, outputs, name)
    return ImportedModel(
        name=name,
        module=module,
        inputs=tuple(replace(spec, ranges=ranges.get(spec.name, ())) for spec in inputs),
        outputs=outputs,
        onnx=model,
        content_hash=content_hash,
        origins=imported.origins,
        layer_names=imported.layer_names,
    )


def _copied(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _specs(names: list[str], values: list[relax.Var], where: str) -> tuple[TensorSpec, ...]:
    return tuple(_spec(name, value.ty, where) for name, value in zip(names, values, strict=True))


def _spec(name: str, ty: relax.Type, where: str) -> TensorSpec:
    if not isinstance(ty, relax.TensorType):
        raise UnsupportedModel(f"{where}: {name!r} is of type {ty}; expected a tensor")
    try:
        shape = static_shape(ty)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{where}: the shape of {name!r} depends on data: {error}") from None
    return TensorSpec(name=name, shape=shape, dtype=str(ty.dtype))


def _output_specs(names: list[str], main: relax.Function, where: str) -> tuple[TensorSpec, ...]:
    types = tensor_types(main.ret_ty)
    return tuple(_spec(name, ty, where) for name, ty in zip(names, types, strict=True))


def _check_declared(model: ModelProto, outputs: tuple[TensorSpec, ...], where: str) -> None:
    """Reject an output whose declared type differs from that of its node's result."""
    for value, output in zip(model.graph.output, outputs, strict=True):
        declared = value.type.tensor_type.elem_type
        if declared and helper.tensor_dtype_to_np_dtype(declared).name != output.dtype:
            wanted = helper.tensor_dtype_to_np_dtype(declared).name
            raise InvalidModel(
                f"{where}: output {output.name!r} is declared as {wanted}; got {output.dtype} from "
                f"its node. Correct the model or export it again"
            )


def _import_relax(
    module: IRModule, shapes: Mapping[str, tuple[int, ...]] | None, limits: ImportLimits
) -> ImportedModel:
    entries = {variable.name_hint: function for variable, function in module.functions.items()}
    if not isinstance(entries.get("main"), relax.Function):
        raise InvalidModel("the Relax module has no function 'main'; name its entry function so")
    _check_well_formed(module)
    module = _bind_shapes(module, shapes or {})
    check_module(module, "relax", limits)
    module = normalize(module, ImportBudget(limits))
    main = module["main"]
    outputs = tensor_types(main.ret_ty)
    return ImportedModel(
        name="relax",
        module=module,
        inputs=_specs([param.name for param in main.params], main.params, "relax"),
        outputs=_output_specs([f"output{i}" for i in range(len(outputs))], main, "relax"),
        onnx=None,
        content_hash=_relax_hash(module),
        origins={},
        layer_names={},
    )


def _check_well_formed(module: IRModule) -> None:
    try:
        relax.analysis.well_formed(module)
    except MemoryError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InvalidModel(
            f"the Relax module is not well-formed: {lines[0] if lines else type(error).__name__}. "
            f"Expected one that relax.analysis.well_formed takes"
        ) from None


def _bind_shapes(module: IRModule, shapes: Mapping[str, tuple[int, ...]]) -> IRModule:
    """Replace the symbolic dimensions of the named parameters of `main` by numbers."""
    params = {param.name: param for param in module["main"].params}
    symbols: dict[Any, int] = {}
    for name, shape in shapes.items():
        if name not in params:
            raise InvalidShape(
                f"--shape {name}: the module has no such parameter; expected one of "
                f"{', '.join(params)}"
            )
        dims = params[name].ty.shape
        if dims is None or len(dims.values) != len(shape):
            raise InvalidShape(
                f"--shape {name}: got {len(shape)} dimensions; expected {params[name].ty}"
            )
        for dim, size in zip(dims.values, shape, strict=True):
            if isinstance(dim, relax.Var) or not hasattr(dim, "value"):
                symbols[dim] = size
            elif int(dim) != size:
                raise InvalidShape(
                    f"--shape {name}: got {shape}; the module fixes it: {params[name].ty}"
                )
    if not symbols:
        return module
    result = module.clone()
    main = result.get_global_var("main")
    result.update_func(main, module["main"].bind_symbolic_vars(symbols))
    return result


def _content_hash(model: ModelProto, weights: Mapping[str, np.ndarray]) -> str:
    """Hash the structure and every weight, including those in `weights` that `model` only names."""
    digest = hashlib.sha256()
    skeleton = ModelProto(ir_version=model.ir_version)
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    for part in ("node", "input", "output"):
        getattr(skeleton.graph, part).extend(getattr(model.graph, part))
    digest.update(skeleton.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        digest.update(repr((tensor.name, tensor.data_type, tuple(tensor.dims))).encode())
        digest.update(
            _bits(weights[tensor.name]) if tensor.name in weights else _tensor_bytes(tensor)
        )
    return digest.hexdigest()


def _bits(array: np.ndarray) -> memoryview:
    """Return the bytes of an array in order, copied only if it is not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _tensor_bytes(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return onnx.numpy_helper.to_array(tensor).tobytes()


def _relax_hash(module: IRModule) -> str:
    digest = hashlib.sha256(module.script(show_meta=False).encode())
    for function in module.functions.values():
        if isinstance(function, relax.Function):
            for constant in _constants(function):
                digest.update(_bits(array_of(constant)))
    return digest.hexdigest()


def _constants(function: relax.Function) -> list[Constant]:
    found: list[Constant] = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, Constant):
            found.append(expr)

    relax.analysis.post_order_visit(function, visit)
    return found
