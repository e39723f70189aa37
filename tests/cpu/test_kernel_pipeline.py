"""The TIR pipeline of the kernels: TVM's results, and TVM's passes once per kernel."""

import numpy as np
import pytest
import tvm
from support import TARGET, decide, model, random_array, weights
from test_cpu_operators import local_response
from tvm import relax
from tvm.relax.op import concat, exp, flip, nn
from tvm.tirx.compilation_pipeline import get_tir_pipeline

from tvm_passes.cpu import KERNEL_PIPELINE, LowerCpu
from tvm_passes.cpu.emit import EMITTED
from tvm_passes.decision import Decision


def lowered():
    """A module with a kernel of ours and one of TVM's."""

    def body(x):
        return flip(nn.relu(nn.conv2d(x, weights(8, 8, 3, 3), padding=1)), axis=1)

    module = LowerCpu(TARGET)(decide(model(body, (1, 8, 6, 6)), Decision(unit="cpu")))
    kernels = {
        gv: f.with_attr("global_symbol", gv.name_hint)
        for gv, f in module.functions.items()
        if isinstance(f, tvm.tirx.PrimFunc)
    }
    assert len(kernels) == 2
    return module, tvm.tirx.transform.BindTarget(TARGET.with_host(TARGET))(tvm.IRModule(kernels))


def test_results_are_those_of_the_standard_pipeline():
    module, _ = lowered()
    x = tvm.runtime.tensor(random_array(1, 8, 6, 6))
    results = []
    for pipeline in ("default", KERNEL_PIPELINE, KERNEL_PIPELINE):
        executable = tvm.compile(
            module, TARGET, relax_pipeline="default_build", tir_pipeline=pipeline
        )
        results.append(relax.VirtualMachine(executable, tvm.cpu())["main"](x).numpy())
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def pooled(x):
    return nn.max_pool2d(x, (3, 3), padding=(1, 1))


SHAPE = (2, 32, 9, 11)
EMITTED_KERNELS = {
    "convolution": (SHAPE, lambda x: nn.conv2d(x, weights(32, 32, 3, 3), padding=1), "cpu:NHWC"),
    "odd channels": (
        (1, 13, 9, 9),
        lambda x: nn.relu(nn.conv2d(x, weights(21, 13, 3, 3), padding=1)),
        "cpu:NHWC",
    ),
    "groups": (
        SHAPE,
        lambda x: nn.conv2d(x, weights(32, 16, 3, 3), padding=3, groups=2),
        "cpu:NCHW",
    ),
    "winograd": (
        SHAPE,
        lambda x: nn.conv2d(x, weights(48, 32, 3, 3), padding=(1, 0, 2, 1)),
        "cpu:NCHW16c:f32:winograd",
    ),
    "pooling in pairs": (SHAPE, pooled, "cpu:NHWC:split-bf16"),
    "parts in place": (
        SHAPE,
        lambda x: pooled(concat([pooled(x), exp(x)], axis=1)),
        "cpu:NCHW32c:bf16",
    ),
    "normalisation": (SHAPE, local_response, "cpu:NCHW16c"),
}


@pytest.mark.parametrize("name", EMITTED_KERNELS)
def test_skipped_passes_change_no_kernel(name):
    shape, body, text = EMITTED_KERNELS[name]
    decided = decide(model(body, shape), Decision.parse(text))
    kernels = {
        gv: function.with_attr("global_symbol", gv.name_hint)
        for gv, function in LowerCpu(TARGET)(decided).functions.items()
        if isinstance(function, tvm.tirx.PrimFunc) and EMITTED in function.attrs
    }
    assert kernels
    module = tvm.tirx.transform.BindTarget(TARGET.with_host(TARGET))(tvm.IRModule(kernels))
    scripts = []
    for pipeline in ("default", KERNEL_PIPELINE):
        lowered_kernels = get_tir_pipeline(pipeline)[0](module).functions
        scripts.append(
            {
                gv.name_hint: function.without_attr("tirx.is_entry_func").script()
                for gv, function in lowered_kernels.items()
            }
        )
    assert scripts[1] == scripts[0]


def test_a_kernel_is_lowered_once():
    lower, _, _ = get_tir_pipeline(KERNEL_PIPELINE)
    first, again = (lower(lowered()[1]) for _ in range(2))
    names = {gv.name_hint: function for gv, function in again.functions.items()}
    assert all(names[gv.name_hint].same_as(function) for gv, function in first.functions.items())


def test_an_equal_kernel_of_another_name_keeps_its_name():
    lower, _, _ = get_tir_pipeline(KERNEL_PIPELINE)
    _, kernels = lowered()
    lower(kernels)
    renamed = {
        f"other_{gv.name_hint}": function.with_attr("global_symbol", f"other_{gv.name_hint}")
        for gv, function in kernels.functions.items()
    }
    for gv, function in lower(tvm.IRModule(renamed)).functions.items():
        assert function.attrs["global_symbol"] in (gv.name_hint, f"__tvm_ffi_{gv.name_hint}")
