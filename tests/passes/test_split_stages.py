"""Stages of a module: what each takes, gives and computes, and one module of all."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax.op import nn

from tests.cpu.support import model, weights
from tests.reference import run_relax
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import IllegalDecision
from tvm_passes.ir import entry_points
from tvm_passes.lift_weights import LiftWeights, collect_weights, weights_read
from tvm_passes.merge_partitions import MergePartitions
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.pipeline import decide, lower_stages
from tvm_passes.split_stages import place_of, split_stages

SHAPE = (1, 16, 8, 8)
STAGES = {"trunk": ["s0"], "left": ["s1"], "rest": ["s2", "s3", "s4"]}
PLAIN, CHANNELS_LAST = Decision(unit="cpu"), Decision(unit="cpu", layout="NHWC")


def fork(x):
    """A stem, two branches that read it, and their sum."""
    stem = nn.relu(nn.conv2d(x, weights(16, 16, 3, 3), padding=1))
    left = nn.conv2d(stem, weights(16, 16, 1, 1, seed=2))
    right = nn.max_pool2d(stem, (3, 3), (1, 1), (1, 1))
    return nn.softmax(relax.op.concat([left, right], axis=1), axis=1)


@pytest.fixture(scope="module")
def partitioned():
    return PartitionSubgraphs()(model(fork, SHAPE))


def decided(module, **others):
    ids = [f"s{index}" for index in range(5)]
    return decide(module, {**dict.fromkeys(ids, PLAIN), **others})


def run_parts(parts, x):
    """Run stages one after the other; the model's results."""
    tensors = {"input.0": x}
    for part in parts:
        results = run_relax(part.module, [tensors[name] for name in part.inputs])
        tensors.update(zip(part.outputs, results, strict=True))
    return [tensors["output.0"]]


@pytest.mark.parametrize(
    "layouts", [{}, {"s0": CHANNELS_LAST}, {"s1": CHANNELS_LAST, "s2": CHANNELS_LAST}]
)
def test_the_values_stay(partitioned, layouts):
    parts = split_stages(decided(partitioned, **layouts), STAGES)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    np.testing.assert_allclose(
        run_parts(parts, x)[0], run_relax(partitioned, [x])[0], rtol=1e-5, atol=1e-6
    )


def test_what_each_takes_and_gives(partitioned):
    trunk, left, rest = split_stages(decided(partitioned, s0=CHANNELS_LAST), STAGES)
    assert (trunk.inputs, trunk.outputs) == (("input.0",), ("s0.0",))
    assert (left.inputs, left.outputs) == (("s0.0",), ("s1.0",))
    assert (set(rest.inputs), rest.outputs) == ({"s0.0", "s1.0"}, ("output.0",))
    # The tensor crosses in its producer's layout, and both readers transform it.
    tap = trunk.module["main"].ret_ty
    assert [int(dim) for dim in tap.shape] == [1, 8, 8, 16]
    for part in (left, rest):
        names = [gv.name_hint for gv in part.module.functions]
        assert any(name.startswith("transform_NHWC") for name in names)


def test_tensors_that_stay_on_a_device_have_names_of_their_own(partitioned):
    """Two stages on one device pass a tensor on there; another stage has it from the host."""
    first, second = (DeviceId.named(name) for name in ("opencl", "opencl/1"))
    module = decided(partitioned, s0=CHANNELS_LAST)
    trunk, left, rest = parts = split_stages(module, STAGES, {"trunk": first, "left": first})
    assert trunk.outputs == ("s0.0@opencl", "s0.0")
    assert (left.inputs, left.outputs) == (("s0.0@opencl",), ("s1.0",))
    assert set(rest.inputs) == {"s0.0", "s1.0"}
    assert trunk.layout("s0.0@opencl") == trunk.layout("s0.0") != ""
    assert [place_of(name) for name in trunk.outputs] == [first, HOST_DEVICE]
    x = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    np.testing.assert_allclose(
        run_parts(parts, x)[0], run_relax(partitioned, [x])[0], rtol=1e-5, atol=1e-6
    )
    apart = split_stages(module, STAGES, {"trunk": first, "left": second})
    assert [part.inputs for part in apart] == [part.inputs for part in split_stages(module, STAGES)]


def test_each_holds_its_functions_alone(partitioned):
    parts = split_stages(decided(partitioned), STAGES)
    held = [
        {str(f.attrs["layoutsel.subgraph"]) for f in part.module.functions.values() if _is_one(f)}
        for part in parts
    ]
    assert held == [set(ids) for ids in STAGES.values()]
    for part in parts:
        relax.analysis.well_formed(part.module)


def _is_one(function):
    return function.attrs is not None and "layoutsel.subgraph" in function.attrs


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({"trunk": ["s0"], "left": ["s1"]}, "is in no stage"),
        ({**STAGES, "twice": ["s1"]}, "sub-graph s1 is in stages 'left' and 'twice'"),
        (
            {"left": ["s1"], "trunk": ["s0"], "rest": ["s2", "s3", "s4"]},
            "of the later stage 'trunk'",
        ),
    ],
)
def test_stages_that_do_not_fit(partitioned, stages, said):
    with pytest.raises(IllegalDecision, match=said):
        split_stages(decided(partitioned), stages)


def split_in_two(x):
    """A sub-graph with several results, which different stages read; an input that is a result as well."""
    parts = relax.op.split(nn.relu(x), 2, axis=1)
    return relax.Tuple([nn.relu(parts[0]), relax.op.negative(parts[1]), x])


def test_fields_of_a_tuple_cross_alone():
    module = PartitionSubgraphs(max_operators=1)(model(split_in_two, SHAPE))
    ids = sorted(
        str(f.attrs["layoutsel.subgraph"]) for f in module.functions.values() if _is_one(f)
    )
    stages = {"front": ids[:-2], "one": ids[-2:-1], "two": ids[-1:]}
    parts = split_stages(decide(module, dict.fromkeys(ids, PLAIN)), stages)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    tensors = {"input.0": x}
    for part in parts:
        results = run_relax(part.module, [tensors[name] for name in part.inputs])
        tensors.update(zip(part.outputs, results, strict=True))
    for index, want in enumerate(run_relax(module, [x])):
        np.testing.assert_array_equal(tensors[f"output.{index}"], want)


def test_one_module_of_all(partitioned):
    """Its entry points stand in order; each takes its own weights."""
    decisions = dict.fromkeys([f"s{index}" for index in range(5)], PLAIN)
    module, _ = lower_stages(partitioned, decisions, host_target(), STAGES)
    assert entry_points(module) == ["stage_trunk", "stage_left", "stage_rest"]
    read = weights_read(module)
    assert {index for of in read.values() for index in of} == {*range(len(collect_weights(module)))}
    lifted = LiftWeights()(module)
    for name in entry_points(lifted):
        assert len(lifted[name].params[-1].ty.fields) == len(read[name])
    relax.analysis.well_formed(lifted)


def test_a_kernel_of_two_stages_is_there_once():
    def twins(x):
        kernel = weights(16, 16, 3, 3)
        return nn.conv2d(nn.conv2d(x, kernel, padding=1), kernel, padding=1)

    module = PartitionSubgraphs()(model(twins, SHAPE))
    decisions = {"s0": PLAIN, "s1": PLAIN}
    joined, _ = lower_stages(module, decisions, host_target(), {"a": ["s0"], "b": ["s1"]})
    kernels = [f for f in joined.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]
    assert len(kernels) == 1


def test_partitions_stay_within_a_stage(partitioned):
    unit = Decision(unit="onednn")
    whole = decided(partitioned, s0=unit, s1=unit)
    merged = MergePartitions()(whole)
    assert sum(gv.name_hint.startswith("p") for gv in merged.functions) == 1
    parts = split_stages(whole, STAGES)
    names = [
        gv.name_hint
        for part in parts
        for gv in MergePartitions(prefix=f"{part.name}_p")(part.module).functions
    ]
    assert [name for name in names if "_p" in name] == ["trunk_p0", "left_p0"]
