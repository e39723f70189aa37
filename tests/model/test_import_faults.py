"""Each cause of a failed import has an error of its own; only a fault of the model is called one."""

from __future__ import annotations

import errno

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from tvm import relax

from layoutsel.errors import ImporterFault, InvalidModel, LayoutselError, UnsupportedModel
from layoutsel.model import (
    import_converters,
    import_model,
    import_onnx,
    import_prepare,
)
from tests.model.graphs import INT64, Input, ints, single
from tvm_passes.onnx import indices

X = Input(1, 8)


def raising(error):
    def step(*_arguments, **_options):
        raise error

    return step


OURS = [MemoryError(), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
STEPS = [
    (import_onnx, "normalize"),
    (import_prepare, "_convert_version"),
    (import_prepare, "infer_types"),
    (ir.serde, "deserialize_model"),
]


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_lack_of_memory_or_room_passes(monkeypatch, error, owner, name):
    monkeypatch.setattr(owner, name, raising(error))
    with pytest.raises(type(error)):
        import_model(single("Relu", [X]))


@pytest.mark.parametrize("error", OURS[:2], ids=lambda error: type(error).__name__)
def test_converter_without_memory_or_room(monkeypatch, error):
    monkeypatch.setattr(import_converters, "convert", raising(error))
    with pytest.raises(type(error)):
        import_model(single("Relu", [X]))


def test_fault_of_ours_is_no_fault_of_the_model(monkeypatch):
    # The converter then takes the length of nothing.
    monkeypatch.setattr(indices, "static_shape", lambda _expr: None)
    with pytest.raises(
        ImporterFault, match=r"'node' .*by a fault of layoutsel: TypeError"
    ) as caught:
        import_model(single("Gather", [X, ints(0)]))
    assert not isinstance(caught.value, LayoutselError)


def test_fault_of_a_pass_is_no_fault_of_the_model(monkeypatch):
    monkeypatch.setattr(import_onnx, "normalize", raising(KeyError("s7")))
    with pytest.raises(KeyError):
        import_model(single("Relu", [X]))


def test_missing_feature():
    model = single("RoiAlign", [Input(1, 2, 8, 8), Input(1, 4), ints(0)], {"mode": "max"})
    with pytest.raises(UnsupportedModel, match=r"'node' \(RoiAlign\)"):
        import_model(model)


@pytest.mark.parametrize("elem", ["COMPLEX64", "COMPLEX128", "INT4", "FLOAT8E5M2", "STRING"])
def test_element_types_without_code(elem):
    model = single("Identity", [Input(4, elem=TensorProto.DataType.Value(elem))], opset=21)
    with pytest.raises(UnsupportedModel, match=f"string|{elem.lower()}"):
        import_model(model)


def test_input_that_nothing_reads():
    model = single("Relu", [X])
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.COMPLEX64, [2]))
    with pytest.raises(UnsupportedModel, match=r"input 'z' has element type 14 \(complex64\)"):
        import_model(model)


def test_argument_that_tvm_cannot_take():
    numbers = [Input(4, elem=INT64), Input(1, elem=INT64), np.asarray([0, 1], "float32")]
    model = single("OneHot", numbers)
    with pytest.raises(UnsupportedModel, match=r"'node' \(OneHot\)"):
        import_model(model)


def test_relax_module_that_is_not_well_formed():
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    stranger = relax.Var("stranger", relax.TensorType((2,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.add(x, x)))
    module = builder.get()
    module["main"] = relax.Function([x], stranger, relax.TensorType((2,), "float32"))
    with pytest.raises(InvalidModel, match="not well-formed"):
        import_model(module)
