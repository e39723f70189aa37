"""Operators whose converters are ours compute what ONNX Runtime does, over their attributes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from reference import TOLERANCE, random_feeds, relative_error, run_onnx, run_relax

from layoutsel.errors import UnsupportedModel
from layoutsel.model import import_model
from tvm_passes.ir import main_bindings, op_name


def single(
    op_type, inputs, constants=None, *, opset=18, elem=TensorProto.FLOAT, order=None, **attributes
) -> ModelProto:
    """A model of one operator: `inputs` are shapes of activations, `constants` arrays."""
    constants = constants or {}
    node = helper.make_node(
        op_type, order or [*inputs, *constants], ["y"], name="node", **attributes
    )
    graph = helper.make_graph(
        [node],
        "single",
        [helper.make_tensor_value_info(name, elem, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", elem, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(model: ModelProto, feeds=None):
    imported = import_model(model)
    names = {op_name(binding.value) for binding in main_bindings(imported.module["main"])}
    assert not names & {"call_tir", "shape_of", "shape_to_tensor"}
    feeds = feeds or random_feeds(imported.inputs)
    for got, want in zip(
        run_relax(imported.module, list(feeds.values())), run_onnx(model, feeds), strict=True
    ):
        assert got.dtype == want.dtype
        assert relative_error(got, want) <= TOLERANCE


COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]  # fmt: skip
SIZES = {
    "exact": {"scales": [1, 1, 2, 3]},
    "inexact": {"scales": [1, 1, 1.7, 0.65]},
    "sizes": {"sizes": [1, 2, 9, 4]},
    "to_one": {"sizes": [1, 2, 1, 12]},
    "channels": {"scales": [1, 2, 2, 1]},
}


def resize(shape, coordinates, mode, **options):
    constants = {
        "roi": np.zeros(0, "float32"),
        "scales": np.asarray(options.pop("scales", []), "float32"),
    }
    if "sizes" in options:
        constants["sizes"] = np.asarray(options.pop("sizes"), "int64")
    return single(
        "Resize", {"x": shape}, constants, mode=mode,
        coordinate_transformation_mode=coordinates, **options,
    )  # fmt: skip


CASES = [
    case
    for case in itertools.product(SIZES, COORDINATES, ["nearest", "linear", "cubic"])
    # ONNX Runtime resizes by cubics in two dimensions only.
    if case[0] != "channels" or case[2] != "cubic"
]


@pytest.mark.parametrize(("sizes", "coordinates", "mode"), CASES)
def test_resize(sizes, coordinates, mode):
    check(resize([1, 2, 5, 7], coordinates, mode, **SIZES[sizes]))


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("scale", [2.0, 1.5, 0.7])
def test_resize_rounding(scale, rounding):
    check(resize([1, 1, 6, 6], "half_pixel", "nearest", scales=[1, 1, scale, scale], nearest_mode=rounding))  # fmt: skip


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_resize_of_named_axes(policy):
    check(resize([1, 2, 5, 7], "half_pixel", "linear", sizes=[10, 9], axes=[3, 2], keep_aspect_ratio_policy=policy))  # fmt: skip


@pytest.mark.parametrize("exclude", [0, 1])
def test_resize_by_cubics_at_the_border(exclude):
    for scale in (2.0, 1.3):
        check(resize([1, 2, 5, 7], "half_pixel", "cubic", scales=[1, 1, scale, scale], exclude_outside=exclude, cubic_coeff_a=-0.5))  # fmt: skip


@pytest.mark.parametrize("shape", [[1, 2, 9], [1, 2, 3, 4, 5]], ids=["sequence", "volume"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_of_other_ranks(mode, shape):
    check(resize(shape, "half_pixel", mode, scales=[1, 1] + [2] * (len(shape) - 2)))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("op_type", "opset", "scales"),
    [("Upsample", 9, [1, 1, 2, 3]), ("Resize", 10, [1, 1, 2, 3]), ("Resize", 10, [1, 1, 1.5, 0.4])],
)
def test_resize_of_old_operator_sets(op_type, opset, scales, mode):
    constants = {"scales": np.asarray(scales, "float32")}
    check(single(op_type, {"x": [1, 2, 5, 7]}, constants, opset=opset, mode=mode))


def test_resize_beside_an_axis_of_one():
    check(resize([1, 2, 1, 5], "align_corners", "linear", sizes=[1, 2, 1, 11]))


def test_resized_size_is_rounded_in_single_precision():
    check(resize([1, 2, 4, 5], "half_pixel", "linear", scales=[1, 1, 1, 2.6]))


def test_resize_that_smooths_is_refused():
    with pytest.raises(UnsupportedModel, match="antialias is 1; expected 0"):
        import_model(resize([1, 2, 5, 7], "half_pixel", "linear", scales=[1, 1, 0.5, 0.5], antialias=1))  # fmt: skip


EQUATIONS = {
    "ij,jk->ik": [[2, 3], [3, 4]],
    "ij,jk": [[2, 3], [3, 4]],
    "bhid,bhjd->bhij": [[2, 3, 4, 5], [2, 3, 6, 5]],
    "bsd,de->bse": [[2, 3, 4], [4, 5]],
    "bi,bi->b": [[2, 3], [2, 3]],
    "i,j->ji": [[2], [3]],
    "ij->": [[2, 3]],
    "ijk->kj": [[2, 3, 4]],
    "...ij,...jk->...ik": [[2, 3, 4], [2, 4, 5]],
    "b...i,ij->b...j": [[2, 3, 4, 5], [5, 6]],
    "ij,jk,kl->il": [[2, 3], [3, 4], [4, 5]],
    "bij,bj,b->i": [[2, 3, 4], [2, 4], [2]],
    "ab,cd->dcba": [[2, 3], [4, 5]],
    "ab,bc->ac": [[2, 1], [3, 4]],
    "ij,->ij": [[2, 3], []],
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation):
    shapes = {f"x{index}": shape for index, shape in enumerate(EQUATIONS[equation])}
    check(single("Einsum", shapes, equation=equation))


@pytest.mark.parametrize(
    ("equation", "shapes", "fragment"),
    [
        ("ii->i", [[3, 3]], "repeats a letter"),
        ("ij,jk->ik", [[2, 3]], "2 operands; got 1"),
        ("ijk->k", [[2, 3]], "does not fit"),
        ("ij->k", [[2, 3]], "no operand has"),
    ],
)
def test_einsum_that_cannot_be_read(equation, shapes, fragment):
    inputs = {f"x{index}": shape for index, shape in enumerate(shapes)}
    with pytest.raises(UnsupportedModel, match=fragment):
        import_model(single("Einsum", inputs, equation=equation))


def test_gathering_and_scattering():
    """TVM's converters compute indices from the shape of their data at run time; here it is known."""
    indices = np.asarray([[0, -1, 1, 0]])
    check(single("GatherElements", {"x": [3, 4]}, {"i": indices}, axis=0))
    check(single("GatherND", {"x": [3, 4]}, {"i": np.asarray([[0, 1], [-1, 2]])}))
    update = {"i": np.asarray([[0], [-1]]), "u": np.ones((2, 4), "float32")}
    check(single("ScatterND", {"x": [3, 4]}, update))
    check(single("ScatterElements", {"x": [3, 4]}, {"i": indices, "u": np.ones((1, 4), "float32")}))


@pytest.mark.parametrize(
    "exponent", [np.int64(2), np.asarray([3]), np.asarray([[[0.5]]], "float32")]
)
def test_power_of_one_exponent(exponent):
    feeds = {"x": np.random.default_rng(0).random((1, 2, 3, 4), "float32") + 0.5}
    check(single("Pow", {"x": [1, 2, 3, 4]}, {"e": exponent}), feeds)


WIDE = 2**40


@pytest.mark.parametrize("bounds", list(itertools.product([None, -WIDE], [None, WIDE])))
def test_clip_of_wide_integers(bounds):
    constants = {n: np.int64(b) for n, b in zip("lh", bounds, strict=True) if b is not None}
    order = ["x", *(name if name in constants else "" for name in "lh")]
    model = single("Clip", {"x": [4]}, constants, elem=TensorProto.INT64, order=order)
    check(model, {"x": np.asarray([-(2**50), -5, 5, 2**50])})


def test_clip_between_bounds_that_the_model_computes():
    model = single("Clip", {"x": [2, 3], "l": [], "h": []})
    feeds = random_feeds(import_model(model).inputs) | {"l": np.float32(-0.2), "h": np.float32(0.3)}
    check(model, {name: np.asarray(value) for name, value in feeds.items()})


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumulative_sum(reverse, exclusive):
    axis = {"a": np.int64(1)}
    check(single("CumSum", {"x": [2, 5]}, axis, reverse=reverse, exclusive=exclusive))


@pytest.mark.parametrize("op_type", ["Sinh", "Cosh"])
def test_hyperbolic(op_type):
    check(single(op_type, {"x": [2, 5]}))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_gemm_scales_its_bias(beta):
    constants = {"w": np.ones((3, 4), "float32"), "b": np.ones(4, "float32")}
    check(single("Gemm", {"x": [2, 3]}, constants, alpha=2.0, beta=beta))


def test_reshape_by_attribute():
    imported = import_model(single("Reshape", {"x": [2, 6]}, opset=1, shape=[3, 4]))
    assert imported.outputs[0].shape == (3, 4)


def test_attention_is_spelled_out():
    shapes = {name: [1, 2, 4, 8] for name in "qkv"}
    check(single("Attention", shapes, opset=23))


def test_output_called_like_the_entry_function():
    model = single("Relu", {"self": [2, 3]})
    model.graph.node[0].output[0] = model.graph.output[0].name = "main"
    model.graph.node[0].name = "main"
    assert import_model(model).outputs[0].name == "main"


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [-1], [0, 2], []])
@pytest.mark.parametrize("opset", [13, 18])
def test_log_sum_exp(axes, keepdims, opset):
    given = {"axes": axes} if axes and opset < 18 else {}
    constants = {"axes": axes} if axes and opset >= 18 else None
    model = single(
        "ReduceLogSumExp", {"x": [2, 3, 4]}, constants, opset=opset, keepdims=keepdims, **given
    )
    check(model)


def test_log_sum_exp_of_infinite_values():
    model = single("ReduceLogSumExp", {"x": [4, 2]}, {"axes": [1]}, keepdims=0)
    x = np.array([[np.inf, 1], [-np.inf, -np.inf], [-np.inf, 2], [1e30, 3]], dtype="float32")
    np.testing.assert_array_equal(
        run_relax(import_model(model).module, [x])[0],
        np.array([np.inf, -np.inf, 2, 1e30], dtype="float32"),
    )
