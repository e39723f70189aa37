"""A compiled model in this process, in others, and from several threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from layoutsel.core.files import WriteError
from layoutsel.errors import InputError
from layoutsel.runtime import artifact
from layoutsel.runtime.artifact import FOOTER, ArtifactError

SHAPE = (1, 8, 10, 10)


def network() -> onnx.ModelProto:
    """Two inputs, two outputs: a convolution, and its sum with the other input."""
    weights = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32) / 8
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["a", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["left"], name="relu"),
            helper.make_node("Add", ["left", "b"], ["right"], name="add"),
        ],
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "ab"],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)
            for name in ("left", "right")
        ],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(SHAPE).astype(np.float32) for name in "ab"}


def expected(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        network().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


@pytest.fixture(scope="module")
def compiled():
    return layoutsel.optimize(network(), cost="roofline", threads=2, verify_speed=False)


@pytest.fixture(scope="module")
def saved(compiled, tmp_path_factory):
    return compiled.save(tmp_path_factory.mktemp("artifact") / "two.so")


def test_inputs_by_name_and_by_position(compiled):
    feed = inputs()
    for results in (
        compiled(**feed),
        compiled(feed["a"], feed["b"]),
        compiled(feed["a"], b=feed["b"]),
    ):
        for got, want in zip(results, expected(feed), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_results_are_the_callers_own(compiled):
    first = compiled(**inputs(0))
    kept = [result.copy() for result in first]
    compiled(**inputs(1))
    for result, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(result, copy)


def test_inputs_need_not_be_contiguous_or_writable(compiled):
    feed = inputs()
    strided = {name: np.asfortranarray(value) for name, value in feed.items()}
    for value in strided.values():
        value.flags.writeable = False
    for got, want in zip(compiled(**strided), compiled(**feed), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"a": inputs()["a"]}, "input 'b' is missing: expected float32"),
        ({**inputs(), "c": inputs()["a"]}, "input 'c' is unknown; the model takes a, b"),
        (
            {**inputs(), "b": np.zeros((1, 8, 10), np.float32)},
            r"input 'b': got float32 of shape \(1, 8, 10\)",
        ),
        ({**inputs(), "b": np.zeros(SHAPE, np.float16)}, "input 'b': got float16"),
        ({**inputs(), "b": "text"}, "input 'b': got <U4"),
    ],
)
def test_a_wrong_input_says_got_and_expected(compiled, feed, message):
    with pytest.raises(InputError, match=message):
        compiled(**feed)


def test_too_many_inputs(compiled):
    with pytest.raises(InputError, match="got 3 inputs; expected 2: a, b"):
        compiled(*inputs().values(), inputs()["a"])


def test_calls_from_several_threads_do_not_mix(compiled):
    feeds = [inputs(seed) for seed in range(8)]
    alone = [compiled(**feed) for feed in feeds]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = list(pool.map(lambda feed: compiled(**feed), feeds))
            for got, want in zip(together, alone, strict=True):
                for left, right in zip(got, want, strict=True):
                    np.testing.assert_array_equal(left, right)


def test_a_new_process_loads_without_the_compiler(saved, compiled, tmp_path):
    feed = inputs(5)
    np.savez(tmp_path / "in.npz", **feed)
    code = (
        "import sys, numpy as np, layoutsel\n"
        "model = layoutsel.load(sys.argv[1])\n"
        "np.savez(sys.argv[3], *model(**np.load(sys.argv[2])))\n"
        "assert 'tvm' not in sys.modules and 'onnx' not in sys.modules"
    )
    subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(saved),
            str(tmp_path / "in.npz"),
            str(tmp_path / "out.npz"),
        ],
        check=True,
    )
    results = np.load(tmp_path / "out.npz")
    for got, want in zip(results.values(), compiled(**feed), strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_artifact_holds_plan_checks_and_provenance(saved):
    header = layoutsel.load(saved).header
    assert header["plan"]["subgraphs"]
    assert {check["output"] for check in header["checks"]} == {"left", "right"}
    assert all(check["rel_l2_err"] < 1e-5 for check in header["checks"])
    assert header["versions"]["apache-tvm"]
    assert header["machine"]


def test_a_loaded_model_saves_again(saved, tmp_path):
    again = layoutsel.load(saved).save(tmp_path / "again.so")
    feed = inputs()
    for got, want in zip(layoutsel.load(again)(**feed), layoutsel.load(saved)(**feed), strict=True):
        np.testing.assert_array_equal(got, want)


def test_saving_where_one_cannot_leaves_nothing(compiled, tmp_path):
    with pytest.raises(WriteError, match="cannot write"):
        compiled.save(tmp_path / "none" / "two.so")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 1, 40, 5000, -1, -FOOTER.size, -FOOTER.size - 1])
def test_a_truncated_artifact_is_refused(saved, tmp_path, keep):
    path = tmp_path / "cut.so"
    path.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"truncated|damaged"):
        layoutsel.load(path)


def test_every_damaged_byte_of_header_and_footer_is_noticed(saved, tmp_path):
    data = saved.read_bytes()
    header_bytes = FOOTER.unpack(data[-FOOTER.size :])[2]
    padding = 4
    places = [*range(-FOOTER.size, -padding), -FOOTER.size - 1, -FOOTER.size - header_bytes]
    path = tmp_path / "damaged.so"
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"truncated|damaged"):
            artifact.read(path)
