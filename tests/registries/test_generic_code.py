"""Generic code computes in layouts and precisions that no kernel knows."""

from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.ir import Call

from tests.bodies import BODIES
from tests.cpu.support import TARGET, declines, error, finish, model, random_array, run
from tests.cpu.test_tunable import computed
from tests.reference import relative_error, run_onnx, run_relax
from tests.registries.entries import IMAGES, network
from tests.registries.test_entries import CHWN, HALF, PAIRED, PAIRS, THIRDS
from tests.units.on_units import run as run_on
from tvm_passes.backends import BACKENDS
from tvm_passes.cpu import LowerCpu
from tvm_passes.cpu.host import has_bf16
from tvm_passes.cpu.legality import generic, hints
from tvm_passes.decided_functions import decide_function
from tvm_passes.decision import Decision
from tvm_passes.ir import main_bindings
from tvm_passes.layouts import LAYOUTS
from tvm_passes.opencl import plugin as opencl
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.precisions import PRECISIONS
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id
from tvm_passes.tunable import tunable

nn, op = relax.op.nn, relax.op
SHAPE = (2, 32, 6, 5)
UNITS = ("cpu", "opencl")
PRECISE, ROUNDED = 5e-6, 1e-3
"""Relative error of f32, and of one rounding to 11 bits at each end."""


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The tables, with entries that the CPU's generic code takes."""
    for table, entries in ((LAYOUTS, (CHWN, PAIRS)), (PRECISIONS, (HALF, PAIRED, THIRDS))):
        for one in entries:
            monkeypatch.setitem(table._loaded(), one.name, replace(one, generic=UNITS))


def two_images(name):
    """A body and its shapes, for two images."""
    body, shapes = BODIES[name]
    return body, [(2, *shape[1:]) if len(shape) == 4 else shape for shape in shapes]


def sub_graphs(module):
    return [f for f in PartitionSubgraphs()(module).functions.values() if subgraph_id(f)]


SOME = ["strided", "depthwise", "residual", "pooling", "kernel of activations"]
BODIES_OF_IMAGES = [name for name, (_, shapes) in BODIES.items() if len(shapes[0]) == 4]


@pytest.mark.parametrize(
    ("name", "layout"),
    [*((name, CHWN.name) for name in BODIES_OF_IMAGES), *((name, PAIRS.name) for name in SOME)],
)
def test_the_cpu_computes_in_a_layout_by_its_index_functions(name, layout):
    body, shapes = two_images(name)
    decision = Decision(unit="cpu", layout=layout)
    assert not declines(model(body, *shapes), decision)
    assert error(body, shapes, decision) < PRECISE


@pytest.mark.parametrize("name", SOME)
def test_code_to_be_tuned_iterates_in_a_layout_by_its_index_functions(name):
    body, shapes = two_images(name)
    module = model(body, *shapes)
    arrays = [random_array(*shape, seed=index) for index, shape in enumerate(shapes)]
    expected = run_relax(module, arrays)[0]
    result = computed(module, arrays, CHWN.name)
    assert relative_error(result.reshape(expected.shape), expected) < 1e-5


@pytest.mark.parametrize(
    ("precision", "least", "most"), [(HALF.name, 1e-6, ROUNDED), (PAIRED.name, 0.0, PRECISE)]
)
@pytest.mark.parametrize("layout", ["NCHW", CHWN.name])
@pytest.mark.parametrize("name", ["same", "residual", "pooling", "softmax"])
def test_the_cpu_computes_between_values_in_a_storage(name, layout, precision, least, most):
    body, shapes = two_images(name)
    decision = Decision(unit="cpu", layout=layout, precision=precision)
    assert not declines(model(body, *shapes), decision)
    assert least <= error(body, shapes, decision) < most


def test_matrices_are_stored_too():
    body, shapes = BODIES["product"]
    decision = Decision(unit="cpu", precision=HALF.name)
    assert 1e-6 < error(body, shapes, decision) < ROUNDED


def test_a_concatenation_is_copied():
    # Kernels write the parts of one in place, which is no generic code's.
    def body(x):
        return op.concat([nn.relu(x), op.sigmoid(x)], axis=1)

    for layout in (CHWN.name, PAIRS.name):
        assert error(body, [SHAPE], Decision(unit="cpu", layout=layout)) < PRECISE


def test_neighbours_of_other_layouts_are_transformed_between():
    # In turn: kernels and generic code, and a transform that a kernel would absorb.
    def body(x):
        y = nn.max_pool2d(nn.relu(x), (2, 2), (1, 1))
        return nn.avg_pool2d(nn.max_pool2d(y, (2, 2), (1, 1)), (2, 2))

    module = model(body, SHAPE)
    arrays = [random_array(*SHAPE)]
    expected = run_relax(module, arrays)[0]
    for turns in (("NHWC", CHWN.name), (PAIRS.name, "NHWC"), (CHWN.name, PAIRS.name)):
        got = run_in_turn(module, arrays, turns)
        assert relative_error(got, expected) < PRECISE


def run_in_turn(module, arrays, layouts):
    partitioned = PartitionSubgraphs()(module)
    names = [subgraph_id(f) for f in partitioned.functions.values() if subgraph_id(f)]
    assert len(names) > 2
    decisions = {
        name: Decision(unit="cpu", layout=layouts[index % 2])
        for index, name in enumerate(sorted(names))
    }
    machine = finish(LowerCpu(TARGET)(RewriteLayouts(decisions)(partitioned)))
    return machine["main"](*map(tvm.runtime.tensor, arrays)).numpy()


def transformers(decisions):
    """Units that transform, by transform, in a model of three poolings under `decisions`."""

    def body(x):
        for _ in decisions:
            x = nn.max_pool2d(x, (2, 2), (1, 1))
        return x

    partitioned = PartitionSubgraphs()(model(body, SHAPE))
    names = sorted(subgraph_id(f) for f in partitioned.functions.values() if subgraph_id(f))
    decided = RewriteLayouts(dict(zip(names, map(Decision.parse, decisions), strict=True)))(
        partitioned
    )
    values = [binding.value for binding in main_bindings(decided["main"])]
    called = [decided[value.op] for value in values if isinstance(value, Call)]
    return {
        str(f.attrs["layoutsel.transform"]): str(f.attrs["layoutsel.unit"])
        for f in called
        if "layoutsel.transform" in f.attrs
    }


@pytest.mark.skipif(not opencl.devices(), reason="no OpenCL device")
def test_devices_compute_in_a_layout_too():
    images = {"x": random_array(*IMAGES)}
    source = network()
    (got,) = run_on(source, images, Decision.parse("opencl:CHWN"))
    assert relative_error(got, run_onnx(source, images)[0]) < PRECISE


def test_devices_decline_elements_that_they_lack():
    (function,) = sub_graphs(model(nn.relu, SHAPE))
    declined = BACKENDS["opencl"].supports(function, Decision.parse("opencl:NCHW:f16-storage"))
    assert declined.got == "float16 elements of f16-storage"


def test_partitions_transform_only_between_orders_that_they_know():
    found = transformers(["onednn:NHWC", f"cpu:{CHWN.name}", "onednn:NCHW8c"])
    assert found == {
        "NCHW>NHWC": "onednn",
        "NHWC>CHWN": "cpu",
        "CHWN>NCHW8c": "cpu",
        "NCHW8c>NCHW": "onednn",
    }
    found = transformers(["onednn:NHWC", f"cpu:NCHW:{HALF.name}"])
    assert found == {"NCHW>NHWC": "onednn", "NHWC>NCHW.f16": "cpu", "NCHW.f16>NCHW": "cpu"}


def reasons(body, shapes, text):
    return [(d.got, d.expected) for d in declines(model(body, *shapes), Decision.parse(text))]


def test_generic_code_declines_with_the_reason():
    def relu(x):
        return nn.relu(x)

    assert reasons(relu, [(2, 8)], "cpu:CHWN") == [
        ("no tensor that has a CHWN form (2 dimensions, expected 4)", "layout NCHW")
    ]
    assert reasons(relu, [(3, 8, 2, 2)], "cpu:N2CHWn") == [
        ("no tensor that has a N2CHWn form (an odd batch)", "layout NCHW")
    ]
    assert reasons(relu, [SHAPE], "cpu:NCHW:thirds")[0][0] == (
        "the storage thirds, of which generic code keeps the first part only"
    )
    assert reasons(relu, [SHAPE], "cpu:CHWN:f32:winograd")[0] == (
        "algorithm winograd of generic code",
        "one of direct",
    )
    assert reasons(relu, [SHAPE], "cpu:NHWC:f16-storage")[0] == (
        "layout NHWC of generic code",
        "one of NCHW, CHWN, N2CHWn",
    )
    assert reasons(relu, [SHAPE], "cpu:NCWH")[0][0] == "layout NCWH"


@pytest.mark.skipif(not has_bf16(TARGET), reason="the CPU has no AVX512_BF16")
def test_precisions_of_kernels_have_no_generic_code():
    assert reasons(nn.relu, [SHAPE], "cpu:CHWN:bf16")[0][0] == "precision bf16 of generic code"


def test_integers_have_no_storage():
    x = relax.Var("x", relax.TensorType(SHAPE, "int32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(op.add(x, x))
        builder.emit_func_output(output)
    (answer,) = declines(builder.finalize(), Decision(unit="cpu", precision=HALF.name))
    assert answer.got == "no float32 tensor, which f16-storage would store otherwise"


def test_cost_models_are_told_that_generic_code_runs():
    (function,) = sub_graphs(model(nn.relu, SHAPE))
    for text in ("cpu:CHWN", "cpu:NCHW:f16-storage"):
        decision = Decision.parse(text)
        assert hints(function, decision) == {"kernel_fallback": 1.0}
        declined = generic(function, decision)
        assert declined.got == "a layout or precision without kernels: generic code runs it"
    assert generic(function, Decision(unit="cpu")) is None


def test_tuned_code_declines_storages_that_it_does_not_know():
    (function,) = sub_graphs(model(nn.relu, SHAPE))
    decided = decide_function(function, Decision.parse("cpu:NCHW:f16-storage:tuned"))
    assert tunable(decided) == "values in the storage f16, which only kernels and copies know"


def test_results_of_a_layout_lie_in_it():
    module = model(nn.relu, SHAPE)
    got = run(module, [random_array(*SHAPE)], Decision(unit="cpu", layout=CHWN.name))
    np.testing.assert_array_equal(got, np.maximum(random_array(*SHAPE), 0))
