"""Reading of multi-exit networks: the guess, specifications, and bad input."""

from __future__ import annotations

import onnx
import pytest
from exit_networks import NETWORKS, Builder, chain
from onnx import TensorProto, helper

from layoutsel.errors import ControlFlow, InvalidModel, InvalidShape, LayoutselError
from layoutsel.exits.network import read
from layoutsel.exits.spec import FORMAT, Exit, ExitSpec

GUESSES = {
    "chain": ["e1", "e2", "last"],
    "residual": ["e1", "last"],
    "multi_scale": ["e1", "e2", "last"],
    "cascade": ["e1", "e2", "last"],
    "stacked": ["e1", "last"],
    "on_input": ["e1", "last"],
    "shared_tap": ["e1", "e2", "last"],
    # The order is that of work: a specification has to say that the small exit is the final one.
    "wide_head": ["last", "e1"],
    "mixed_types": ["e1", "last"],
}


def spec_of(*outputs, model_hash=""):
    exits = tuple(Exit(name=f"exit_{output}", output=output) for output in outputs)
    return ExitSpec(format=FORMAT, model_hash=model_hash, exits=exits)


@pytest.mark.parametrize("name", NETWORKS)
def test_guess(name):
    model = NETWORKS[name]()
    before = model.SerializeToString()
    network = read(model)
    assert [exit_.output for exit_ in network.spec.exits] == GUESSES[name]
    assert network.names[-1] == "final"
    assert network.is_guessed
    assert network.classes == 10
    assert list(network.flops) == sorted(network.flops)
    assert model.SerializeToString() == before
    scored = network.scored()
    onnx.checker.check_model(scored, full_check=True)
    assert [value.name for value in scored.graph.output][::3] == GUESSES[name]
    assert model.SerializeToString() == before


def test_work_is_that_of_all_ancestors():
    network = read(chain())
    # Convolutions of 8 channels on 8×8: from 4 channels, then from 8.
    first, later = (2 * 9 * channels * 8 * 8 * 8 for channels in (4, 8))
    # Activations and heads add a little.
    assert network.flops[0] == pytest.approx(first, rel=0.05)
    assert network.flops[1] - network.flops[0] == pytest.approx(later, rel=0.01)


def test_specification_rules():
    spec = spec_of("e1", "last")
    network = read(NETWORKS["wide_head"](), spec)
    assert network.names == ("exit_e1", "exit_last")
    assert not network.is_guessed
    assert network.flops[0] > network.flops[1]


def test_outputs_of_no_exit_are_not_computed():
    network = read(chain(), spec_of("e1", "last"))
    assert network.unused == ("e2",)
    assert len(network.scored().graph.output) == 6


def test_scored_model_can_be_scored_again(tmp_path):
    onnx.save(read(chain()).scored("margin"), tmp_path / "scored.onnx")
    again = read(tmp_path / "scored.onnx")
    assert [exit_.output for exit_ in again.spec.exits] == GUESSES["chain"]
    onnx.checker.check_model(again.scored("margin"), full_check=True)


def test_specification_of_a_file_and_of_metadata(tmp_path):
    model = chain()
    made = read(model).spec
    made.save(tmp_path / "spec.json")
    assert read(model, tmp_path / "spec.json").spec == made
    made.embed(model)
    network = read(model)
    assert network.spec == made
    assert not network.is_guessed
    # A given specification goes before that of the model.
    assert read(model, spec_of("e1", "last")).names == ("exit_e1", "exit_last")


def test_hash_of_another_model():
    spec = read(NETWORKS["cascade"]()).spec
    with pytest.raises(
        InvalidModel, match=r"of another model: got the hash [0-9a-f]{64}; expected"
    ):
        read(chain(), spec)


def test_weights_belong_to_the_hash():
    spec = read(chain()).spec
    model = chain()
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    with pytest.raises(InvalidModel, match="of another model"):
        read(model, spec)


def single():
    net = Builder()
    net.head(net.conv(net.input("x"), 8), "y")
    return net.model()


def other_classes():
    net = Builder()
    x = net.conv(net.input("x"), 8)
    net.head(x, "e1", 5)
    net.head(net.conv(x, 8), "last")
    return net.model()


def batch(size):
    net = Builder()
    x = net.conv(net.input("x", (size, 4, 8, 8)), 8)
    for name in ("e1", "last"):
        net.head(x, name)
        net.outputs[-1].type.tensor_type.shape.dim[0].Clear()
        x = net.conv(x, 8)
    return net.model()


def strangers():
    """Two networks in one file."""
    net = Builder()
    net.head(net.conv(net.input("x"), 8), "e1")
    net.head(net.conv(net.conv(net.input("z"), 8), 8), "last")
    return net.model()


def constant_final():
    """The heavier exit depends on no input."""
    net = Builder()
    net.head(net.input("x"), "e1")
    net.node("Softmax", net.weight(1, 10), out="last", axis=1)
    net.output("last", (1, 10))
    return net.model()


def with_image():
    """Only one of two outputs has values of classes."""
    net = Builder()
    x = net.conv(net.input("x"), 8, out="image")
    net.output(x, (1, 8, 8, 8))
    net.head(x, "last")
    return net.model()


def old():
    net = Builder(opset=11)
    x = net.conv(net.input("x"), 8)
    net.head(x, "e1")
    net.head(net.conv(x, 8), "last")
    return net.model()


def branching():
    """An exit as ONNX's If: the second half runs if the first is not sure."""
    net = Builder()
    x = net.conv(net.input("x"), 8)
    first = net.head(x, "e1")
    net.outputs.clear()
    limit = net.weight(1)
    best = net.node("ReduceMax", net.node("Softmax", first, axis=1), keepdims=0)
    sure = net.node("Greater", best, net.node("ReduceMax", limit, keepdims=0))
    early = helper.make_graph(
        [helper.make_node("Identity", [first], ["early"])],
        "early",
        [],
        [helper.make_tensor_value_info("early", TensorProto.FLOAT, (1, 10))],
    )
    late = helper.make_graph(
        [helper.make_node("Neg", [first], ["late"])],
        "late",
        [],
        [helper.make_tensor_value_info("late", TensorProto.FLOAT, (1, 10))],
    )
    net.node("If", sure, out="y", then_branch=early, else_branch=late)
    net.output("y", (1, 10))
    return net.model()


BAD_MODELS = {
    "one output": (single, InvalidModel, "got one output, 'y'; expected one for each of two"),
    "classes": (other_classes, InvalidModel, "different numbers of classes: 'e1' has 5, 'last' "),
    "batch": (lambda: batch(4), InvalidModel, r"0 of its outputs can be exits: got 'e1' \(4, 10\)"),
    "dynamic": (lambda: batch("N"), InvalidShape, "--shape x=1,4,8,8 gives them"),
    "strangers": (strangers, InvalidModel, "'e1'.* shares no layer and no input with the final"),
    "image": (with_image, InvalidModel, r"1 of its outputs can be exits: got 'image' \(1, 8, 8"),
    "opset": (old, LayoutselError, "got operator set 11; expected 13 or later"),
    "If": (branching, ControlFlow, r"\(If\) is control flow.* one output \(1, classes\) for each"),
}


@pytest.mark.parametrize("what", BAD_MODELS)
def test_bad_models(what):
    make, kind, message = BAD_MODELS[what]
    with pytest.raises(kind, match=message) as caught:
        read(make())
    assert "\n" not in str(caught.value)


def test_shape_of_a_dynamic_batch():
    network = read(batch("N"), shapes={"x": (1, 4, 8, 8)})
    assert network.classes == 10
    assert [exit_.output for exit_ in network.spec.exits] == ["e1", "last"]


def test_final_exit_without_input():
    with pytest.raises(InvalidModel, match=r"exit 'exit_last'.* depends on no input"):
        read(constant_final(), spec_of("e1", "last"))


def test_unknown_output():
    with pytest.raises(InvalidModel, match="no output 'e3'; expected one of last, e2, e1"):
        read(chain(), spec_of("e3", "last"))


def test_output_that_cannot_be_an_exit():
    with pytest.raises(
        InvalidModel, match=r"got shape \(1, 8, 8, 8\) for output 'image'; expected"
    ):
        read(with_image(), spec_of("image", "last"))
    with pytest.raises(InvalidModel, match=r"got batch 4 of shape \(4, 10\) for output 'e1'"):
        read(batch(4), spec_of("e1", "last"))


def test_unknown_score():
    with pytest.raises(LayoutselError, match="score 'luck': expected one of max_prob, margin"):
        read(chain()).scored("luck")


def test_no_such_file(tmp_path):
    with pytest.raises(LayoutselError, match="no such file"):
        read(tmp_path / "none.onnx")
    with pytest.raises(LayoutselError, match="no such file"):
        read(chain(), tmp_path / "none.json")
