"""Plans are built in copies of this process: within limits, with their weights once in memory, saved as ever."""

from __future__ import annotations

import logging
import os
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from layoutsel.compile import limited_passes, plan_code
from layoutsel.compile.compiling import compiled, compiled_all
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.device.forked import Limits
from layoutsel.errors import BuildError
from tvm_passes.cpu.kernel_pipeline import forget_kernels

VALUES = np.linspace(-1, 1, 200, dtype=np.float32).reshape(1, 200)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    """A product, whose weights are large enough to be shared, and a ReLU."""
    weights = np.random.default_rng(0).standard_normal((200, 160)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Relu", ["p"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 200])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 160])
    graph = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    cache = tmp_path_factory.mktemp("c") / "m.sqlite"
    return Session.open(model, units=("cpu",), threads=1, cache=cache)


@pytest.fixture(scope="module")
def plan(session):
    return best_plan(session, priced_problem(Offers.of(session), "roofline"))


@pytest.fixture
def processes(monkeypatch) -> list[int]:
    """The processes in which code was generated, as far as this one is told."""
    seen: list[int] = []
    for name in ("generate_code", "generate_in_groups"):
        generate = getattr(plan_code, name)

        def generated(*arguments, generate=generate):
            seen.append(os.getpid())
            return generate(*arguments)

        monkeypatch.setattr(plan_code, name, generated)
    return seen


def test_code_is_generated_elsewhere_and_saved_as_ever(session, plan, processes, tmp_path):
    model = compiled(session, plan)
    assert not processes, "another process has its own list"
    path = model.save(tmp_path / "model.so")
    loaded = layoutsel.load(path, verify=True)
    np.testing.assert_array_equal(loaded(VALUES), model(VALUES))
    assert loaded.header["plan"] == model.header["plan"]
    assert model.save(tmp_path / "again.so").stat().st_size == path.stat().st_size


def test_two_plans_share_their_packed_weights(session, plan):
    first = compiled(session, plan)
    held = session.weights.nbytes
    assert held > 0
    second = compiled(session, plan)
    assert session.weights.nbytes == held
    np.testing.assert_array_equal(first(VALUES), second(VALUES))
    both = compiled_all(session, {"one": plan, "two": plan})
    assert session.weights.nbytes == held
    del first, second, both
    assert session.weights.nbytes == 0


def test_where_no_process_can_be_started_it_is_built_here(
    session, plan, processes, monkeypatch, caplog
):
    def refused():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    with caplog.at_level(logging.WARNING, "layoutsel"):
        model = compiled(session, plan)
    assert processes == [os.getpid()]
    assert "built in this process: no process can be started" in caplog.text
    assert "do not end a pass or code generation that has begun" in caplog.text
    assert model(VALUES).shape == (1, 160)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(time_s=1e-3, memory_bytes=1 << 30), r"it took longer than 0.001 s. Pin"),
        (Limits(time_s=60.0, memory_bytes=-1 << 20), r"it took more than -1 MB of memory. Give"),
    ],
)
def test_passes_of_this_process_have_limits_too(session, plan, monkeypatch, limits, reason):
    monkeypatch.setattr(plan_code.cc, "get_cc", lambda: None)
    monkeypatch.setattr(plan_code, "Limits", lambda **_: limits)
    with pytest.raises(BuildError, match=f"the code of the plan cannot be generated: {reason}"):
        compiled(session, plan)


def test_the_limits_hold_for_the_passes_of_kernels(session, plan, monkeypatch):
    seen, check = [], limited_passes._Check.run_before_pass

    def recorded(self, module, info):
        seen.append(info.name)
        check(self, module, info)

    monkeypatch.setattr(plan_code.cc, "get_cc", lambda: None)
    monkeypatch.setattr(limited_passes._Check, "run_before_pass", recorded)
    forget_kernels()  # kernels that another test left are not lowered again
    assert compiled(session, plan)(VALUES).shape == (1, 160)
    assert {"LowerKernels", "tirx.StorageRewrite"} <= set(seen)


def test_a_rival_beyond_the_limit_of_time_is_named_and_dropped(session, plan, monkeypatch, caplog):
    monkeypatch.setattr(plan_code, "generate_in_groups", lambda *_: time.sleep(60))
    with caplog.at_level(logging.WARNING):
        assert not compiled_all(session, {"slow one": plan}, time_limit_s=0.5)
    assert "the contender 'slow one' cannot be built" in caplog.text
    assert "it took longer than 0.5 s" in caplog.text


def test_a_chosen_plan_beyond_the_limit_of_time_is_one_clear_error(session, plan, monkeypatch):
    monkeypatch.setattr(plan_code, "generate_in_groups", lambda *_: time.sleep(60))
    monkeypatch.setattr(plan_code, "BUILD_LIMIT_S", 0.5)
    with pytest.raises(BuildError, match=r"cannot be generated: it took longer than 0.5 s. Pin"):
        compiled(session, plan)


def test_memory_is_limited_as_well(session, plan, monkeypatch):
    monkeypatch.setattr(
        plan_code, "Limits", lambda **_: Limits(time_s=60.0, memory_bytes=128 << 20)
    )
    monkeypatch.setattr(plan_code, "generate_in_groups", lambda *_: np.ones(1 << 30, np.uint8))
    with pytest.raises(BuildError, match=r"it took more than 134 MB of memory. Give"):
        compiled(session, plan)
