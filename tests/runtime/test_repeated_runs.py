"""Runs without the virtual machine: later runs repeat the calls of the first one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from layoutsel.device.cancellation import CancelToken
from layoutsel.errors import Cancelled
from layoutsel.runtime.compiled import CompiledModel
from tvm_passes import onednn
from tvm_passes.onednn.plugin import function

pytestmark = pytest.mark.skipif(onednn.available() is not None, reason="the plugin repeats runs")
SHAPE = (1, 8, 6, 6)
LIMIT_S = 30


def weight(name: str, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(len(name)).standard_normal(shape, np.float32)
    return numpy_helper.from_array(values / np.float32(10), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    outputs: dict[str, Sequence[int]],
    shape: Sequence[int] = SHAPE,
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    graph = helper.make_graph(
        list(nodes),
        "net",
        [value("x", shape=shape)],
        [value(name, shape=one) for name, one in outputs.items()],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def convolution(given: str, made: str, channels: int = 8) -> onnx.NodeProto:
    return helper.make_node("Conv", [given, f"w{channels}"], [made], pads=[1, 1, 1, 1])


W8 = weight("w8", 8, 8, 3, 3)
node = helper.make_node
FLAT = np.array([1, -1])
NETWORKS = {
    "a row": model([convolution("x", "a"), convolution("a", "y")], {"y": SHAPE}, weights=[W8]),
    "a reshaped result": model(
        [convolution("x", "a"), node("Relu", ["a"], ["b"]), node("Flatten", ["b"], ["y"])],
        {"y": (1, 288)},
        weights=[W8],
    ),
    "a reshaped input": model(
        [node("Flatten", ["x"], ["a"]), node("Gemm", ["a", "w"], ["y"])],
        {"y": (1, 5)},
        weights=[weight("w", 288, 5)],
    ),
    "an input and a constant returned": model(
        [node("Identity", ["x"], ["y"]), node("Identity", ["w8"], ["z"]), convolution("x", "a")],
        {"y": SHAPE, "z": (8, 8, 3, 3), "a": SHAPE},
        weights=[W8],
    ),
    "a result twice, and read again": model(
        [
            convolution("x", "a"),
            node("Identity", ["a"], ["b"]),
            convolution("a", "c"),
            node("Softmax", ["c"], ["d"], axis=1),
        ],
        {"a": SHAPE, "b": SHAPE, "d": SHAPE},
        weights=[W8],
    ),
    "an input reshaped and returned": model(
        [node("Flatten", ["x"], ["y"]), node("Relu", ["y"], ["z"])],
        {"y": (1, 288), "z": (1, 288)},
    ),
}


@functools.cache
def compiled(name: str, unit: str) -> CompiledModel:
    return layoutsel.optimize(
        NETWORKS[name], cost="roofline", units=("cpu", unit), threads=1, verify_speed=False
    )


def image(seed: int, shape: Sequence[int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def repeated() -> int:
    return function("layoutsel.repeated_runs")()


def results(network: CompiledModel, x: np.ndarray) -> tuple[np.ndarray, ...]:
    found = network(x)
    return found if isinstance(found, tuple) else (found,)


def expected(network: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(network.SerializeToString()).run(None, {"x": x})


@pytest.mark.parametrize("unit", ["cpu", "onednn"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_run_has_the_results_of_onnx_runtime(name, unit):
    network = compiled(name, unit)
    results(network, image(0))
    seen = []
    for seed in range(4):
        before = repeated()
        found = results(network, image(seed))
        assert repeated() == before + 1
        seen.append(found)
    # Compared at the end: no run has written into the results of an earlier one.
    for seed, found in enumerate(seen):
        for one, other in zip(found, expected(NETWORKS[name], image(seed)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_results_share_no_memory(name):
    network = compiled(name, "cpu")
    for _ in range(3):
        x = image(1)
        first, second = results(network, x), results(network, x)
        arrays = [x, *first, *second]
        for number, one in enumerate(arrays):
            assert not any(np.shares_memory(one, other) for other in arrays[number + 1 :])


def test_large_intermediates_are_not_kept():
    shape = (1, 8, 512, 512)
    large = model([convolution("x", "a"), convolution("a", "y")], {"y": shape}, shape, [W8])
    network = layoutsel.optimize(
        large, cost="roofline", units=("cpu",), threads=1, verify_speed=False
    )
    before = repeated()
    for seed in range(2):
        (found,) = results(network, image(seed, shape))
        (other,) = expected(large, image(seed, shape))
        np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-4)
    assert repeated() == before


def test_a_cancelled_run_leaves_the_next_one_whole():
    network = compiled("a row", "cpu")
    x = image(2)
    (expected_result,) = results(network, x)
    with network.worker() as worker:
        count = None
        for after in (0, 1, None, 1, None):
            token = CancelToken(after=after)
            future = worker.run("main", {"input.0": x}, token)
            if after is None:
                np.testing.assert_array_equal(future.result(LIMIT_S)["output.0"], expected_result)
                assert count in (None, token.begun)
                count = token.begun
            else:
                with pytest.raises(Cancelled):
                    future.result(LIMIT_S)
                assert token.begun == after
        assert count
        assert count > 1


def test_threads_take_turns():
    network = compiled("a row", "cpu")
    wanted = [results(network, image(seed))[0] for seed in range(4)]
    wrong = []

    def work(seed: int) -> None:
        for _ in range(200):
            if not np.array_equal(results(network, image(seed))[0], wanted[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert not wrong
