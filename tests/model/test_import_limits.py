"""Small files that ask for much are refused before anything is allocated, by limits that a user can raise."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from onnx import helper, numpy_helper

import layoutsel
from layoutsel.errors import LayoutselError, ModelTooLarge, UnsupportedModel
from layoutsel.model import import_model
from tests.model.graphs import INT64, Input, ints, nested_functions, ones, single
from tvm_passes.limits import ImportBudget, ImportLimits, parse_limits

X = Input(1, 8, 6, 6)
HUGE = {
    "ConstantOfShape": ([ints(1 << 20, 1 << 14)], {}),
    "ConstantOfShape of one dimension": ([ints(1 << 34)], {}),
    "Conv pads": ([X, ones(4, 8, 3, 3)], {"pads": [1 << 20] * 4}),
    "Conv pads beyond 64 bits": ([X, ones(4, 8, 3, 3)], {"pads": [1 << 40] * 4}),
    "ConvTranspose": ([X, ones(8, 4, 3, 3)], {"strides": [1 << 20, 1 << 10]}),
    "ConvTranspose output_shape": ([X, ones(8, 4, 3, 3)], {"output_shape": [1 << 18, 1 << 18]}),
    "Expand": ([X, ints(1 << 24, 8, 6, 6)], {}),
    "Expand a constant": ([ones(1), ints(1 << 34)], {}),
    "OneHot": ([Input(4, elem=INT64), ints(1 << 36), np.asarray([0, 1], "float32")], {}),
    "Pad": ([X, ints(0, 0, 0, 0, 0, 0, 1 << 20, 1 << 16)], {}),
    "Pad a constant": ([ones(1), ints(0, 1 << 34)], {}),
    "RandomNormal": ([], {"shape": [1 << 18, 1 << 18]}),
    "Range": ([np.asarray(v, "int64") for v in (0, 1 << 36, 1)], {}),
    "Range of floats": ([np.asarray(v, "float32") for v in (0, 1e12, 1)], {}),
    "Relu": ([Input(1 << 20, 1 << 20)], {}),
    "Resize": ([X, "", np.asarray([1, 1, 1 << 16, 1 << 17], "float32")], {}),
    "Resize to sizes": ([X, "", "", ints(1, 8, 1 << 17, 1 << 17)], {}),
    "Sum": ([Input(1 << 28) for _ in range(8)], {}),
    "Tile": ([X, ints(1 << 20, 1 << 10, 1, 1)], {}),
    "Tile a constant": ([ones(1), ints(1 << 34)], {}),
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_tensor(name):
    operands, attributes = HUGE[name]
    model = single(name.split()[0], operands, attributes)
    with pytest.raises(ModelTooLarge, match=r"limit 'tensor'\)\. Raise it") as caught:
        import_model(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("op", "pads"), [("Pad", "pads"), ("Upsample", "scales")])
def test_huge_tensor_of_an_old_operator_set(op, pads):
    values = {"pads": [0, 0, 0, 0, 0, 0, 1 << 20, 1 << 16], "scales": [1.0, 1.0, 65536.0, 65536.0]}
    with pytest.raises(ModelTooLarge, match="'node'"):
        import_model(single(op, [X], {pads: values[pads]}, opset=7))


def test_size_that_the_model_computes():
    extra = [
        helper.make_node("Shape", ["i0"], ["s"]),
        helper.make_node("Mul", ["s", "i1"], ["target"]),
    ]
    operands = [Input(1, 8, 6, 6), ints(1 << 24, 1, 1, 1), "target"]
    model = single("Expand", operands, extra=extra)
    model.graph.node[-1].input[:] = ["i0", "target"]
    with pytest.raises(ModelTooLarge, match=r"'node' \(Expand\)"):
        import_model(model)


@pytest.mark.parametrize("start", [Input(1), ones(1)], ids=["input", "constant"])
def test_doubling(start):
    names = ["i0", *(f"t{index}" for index in range(40))]
    extra = [
        helper.make_node("Concat", [before, before], [after], axis=0)
        for before, after in pairwise(names)
    ]
    model = single("ReduceMax", [start, names[-1]], {"keepdims": 0}, extra=extra)
    model.graph.node[-1].input[:] = [names[-1]]
    with pytest.raises(ModelTooLarge, match="Concat"):
        import_model(model)


def test_branch_that_constants_decide():
    def branch(name, size):
        nodes = [
            helper.make_node("ConstantOfShape", [f"{name}_size"], [f"{name}_all"]),
            helper.make_node("ReduceMax", [f"{name}_all"], [name], keepdims=0),
        ]
        out = helper.make_tensor_value_info(name, 1, [])
        weights = [numpy_helper.from_array(ints(size), f"{name}_size")]
        return helper.make_graph(nodes, name, [], [out], weights)

    attributes = {"then_branch": branch("large", 1 << 34), "else_branch": branch("small", 4)}
    with pytest.raises(ModelTooLarge, match="ConstantOfShape"):
        import_model(single("If", [np.asarray(True)], attributes))
    import_model(single("If", [np.asarray(False)], attributes))


def test_pads_of_constants_are_not_computed():
    attributes = {"pads": [1 << 20] * 4, "strides": [1 << 20] * 2}
    model = single("Conv", [ones(1, 8, 4, 4), ones(4, 8, 3, 3)], attributes)
    assert import_model(model).outputs[0].shape == (1, 4, 3, 3)


def many_expansions(count):
    extra = [
        helper.make_node("Expand", [f"c{index}", "size"], [f"e{index}"]) for index in range(count)
    ]
    model = single("Max", [f"e{index}" for index in range(count)], extra=extra)
    arrays = {f"c{index}": ones(1) * index for index in range(count)} | {"size": ints(1 << 14)}
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    return model


def test_all_constants_together():
    model = many_expansions(20)
    with pytest.raises(ModelTooLarge, match=r"constants computed at import.*limit 'constants'"):
        import_model(model, limits=ImportLimits(constant_bytes=10 << 16))
    import_model(model, limits=ImportLimits(constant_bytes=40 << 16))


@pytest.mark.parametrize(
    ("levels", "calls", "limit"),
    [(30, 2, "nodes"), (16, 2, "nodes"), (60, 1, "depth"), (2000, 1, "depth")],
)
def test_nested_functions(levels, calls, limit):
    with pytest.raises(ModelTooLarge, match=rf"limit '{limit}'"):
        import_model(nested_functions(levels, calls))


def test_few_nested_functions():
    assert import_model(nested_functions(3, 2)).outputs[0].shape == (2,)
    with pytest.raises(ModelTooLarge, match="got 8 nodes"):
        import_model(nested_functions(3, 2), limits=ImportLimits(nodes=7))


def test_limits_can_be_raised():
    model = single("Expand", [Input(1, 8), ints(1 << 10, 8)])
    limits = ImportLimits(tensor_bytes=1 << 10)
    with pytest.raises(ModelTooLarge, match=r"got 32 KiB; expected at most 1 KiB"):
        import_model(model, limits=limits)
    import_model(model)
    with pytest.raises(ModelTooLarge):
        layoutsel.plan(model, limits=limits, cost="roofline")


def test_stored_weights_do_not_count():
    model = single("MatMul", [Input(1, 64), ones(64, 64)])
    limits = ImportLimits(tensor_bytes=1 << 10, constant_bytes=0)
    assert import_model(model, limits=limits).outputs[0].shape == (1, 64)


def test_relax_module():
    module = import_model(single("Expand", [Input(1, 8), ints(1 << 10, 8)])).module
    with pytest.raises(ModelTooLarge, match="relax: result"):
        import_model(module, limits=ImportLimits(tensor_bytes=1 << 10))
    with pytest.raises(ModelTooLarge, match="bindings"):
        import_model(module, limits=ImportLimits(nodes=0))


def graph_with_constants():
    extra = [
        helper.make_node("Shape", ["i0"], ["s"], name="shape"),
        helper.make_node("Relu", ["i0"], ["r"], name="relu"),
    ]
    model = single("Reshape", [X, "s"], extra=extra)
    model.graph.node[-1].input[:] = ["r", "s"]
    return model


def counted_checks(monkeypatch, last=None):
    """Names of the operations before which the time is checked; it is over at the `last` one."""
    names, check = [], ImportBudget.check_time

    def counted(self, what):
        names.append(what)
        if len(names) == last:
            self._deadline = 0.0
        check(self, what)

    monkeypatch.setattr(ImportBudget, "check_time", counted)
    return names


def test_time_is_checked_in_every_phase(monkeypatch):
    names = counted_checks(monkeypatch)
    import_model(graph_with_constants())
    assert any("fold constants" in name for name in names)
    assert any("(Relu)" in name for name in names)
    assert any(name.startswith("pass ") for name in names)


@pytest.mark.parametrize("at", ["fold constants", "(Relu)", "pass FoldConstants", "pass RemoveId"])
def test_wherever_time_ends_it_is_one_error(monkeypatch, at):
    with monkeypatch.context() as patch:
        names = counted_checks(patch)
        import_model(graph_with_constants())
    last = 1 + next(number for number, name in enumerate(names) if at in name)
    counted_checks(monkeypatch, last)
    with pytest.raises(ModelTooLarge, match=r"more than 900 seconds so far \(limit 'seconds'\)"):
        import_model(graph_with_constants())


def test_without_time_nothing_is_imported():
    for source in (graph_with_constants(), import_model(graph_with_constants()).module):
        with pytest.raises(ModelTooLarge, match="limit 'seconds'"):
            import_model(source, limits=ImportLimits(seconds=0))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (None, ImportLimits()),
        (["tensor=8GiB"], ImportLimits(tensor_bytes=8 << 30)),
        (["tensor=8g", "nodes=200000"], ImportLimits(tensor_bytes=8 << 30, nodes=200_000)),
        (["constants=1.5MB", "depth=3"], ImportLimits(constant_bytes=3 << 19, depth=3)),
        (["constants=17"], ImportLimits(constant_bytes=17)),
        (["seconds=1800"], ImportLimits(seconds=1800)),
    ],
)
def test_parse_limits(texts, expected):
    assert parse_limits(texts) == expected


@pytest.mark.parametrize(
    "text",
    ["tensor", "tensor=", "size=3", "nodes=3GiB", "tensor=-1", "=3", "seconds=0.5", "nodes=0"],
)
def test_limit_that_cannot_be_read(text):
    with pytest.raises(LayoutselError, match="--import-limit"):
        parse_limits([text])


def test_command_line_within_a_gibibyte(tmp_path):
    path = tmp_path / "huge.onnx"
    path.write_bytes(single("Tile", [ones(1), ints(1 << 34)]).SerializeToString())
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30,) * 2); "
        "from layoutsel.cli.app import app; app(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "inspect", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "limit 'tensor'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_empty_result_is_refused():
    model = single("Slice", [X, ints(4), ints(4), ints(1)])
    with pytest.raises(UnsupportedModel, match="empty"):
        import_model(model)
