"""Physical slices: the same results as masks, two ONNX parts equal to the whole, and their prices."""

import importlib.util
import random
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from layoutsel.runtime.samples import rel_l2_err
from layoutsel.search.offload.onnx_parts import LOGITS, write_parts
from layoutsel.search.offload.slicing import OffloadChoice, slice_network
from layoutsel.search.offload.transmitted import PRECISIONS
from layoutsel.search.parts import parts_of
from layoutsel.search.space import Architecture
from tests.search.offload_problems import MIXED, drawn_choice, priced, small_space

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed (extra train)")


@needs_torch
def test_slices_compute_what_masks_do(checked):
    rng = random.Random(2)
    cases = []
    for seed in range(60):
        nodes = tuple(rng.randint(1, 3) for _ in range(rng.randint(1, 3)))
        cases.append((small_space(nodes, MIXED), seed))
    assert max(checked("sliced_and_masked", cases)) < 1e-5


@needs_torch
@pytest.mark.parametrize("precision", PRECISIONS)
def test_parts_are_the_whole(checked, precision):
    for seed in range(8):
        space = small_space((2, 2))
        network, weights, steps, x, logits = checked("exported", (space, seed, precision))
        models = write_parts(network, weights, steps)
        for model in models.values():
            onnx.checker.check_model(model, full_check=True)
        first, second, whole = (
            onnxruntime.InferenceSession(models[name].SerializeToString())
            for name in ("first", "second", "whole")
        )
        names = [one.name for one in first.get_outputs()]
        assert names == list(network.sent)
        for sample, wanted in zip(x, logits, strict=True):
            ((one,),) = [whole.run(None, {"x": sample[None]})]
            bound = first.io_binding()
            bound.bind_cpu_input("x", sample[None])
            for name in names:
                bound.bind_output(name)
            first.run_with_iobinding(bound)
            feed = second.io_binding()
            for name, value in zip(names, bound.get_outputs(), strict=True):
                feed.bind_ortvalue_input(name, value)
            feed.bind_output(LOGITS)
            second.run_with_iobinding(feed)
            (two,) = (value.numpy() for value in feed.get_outputs())
            assert rel_l2_err(two, one) <= 1e-6
            # A value between two steps of a byte may be rounded to either.
            assert rel_l2_err(one[0], wanted) <= (1e-5 if precision == "float32" else 2e-2)


@needs_torch
def test_nodes_have_the_names_of_parts_on_their_devices(checked):
    network, weights, steps, *_ = checked("exported", (small_space((2, 2)), 5, "uint8"))
    models = write_parts(network, weights, steps)
    for device, name in enumerate(("first", "second")):
        held = {node.name.partition("/")[0] for node in models[name].graph.node}
        assert held == {part.name for part in network.parts if part.device == device}
    named = {
        name: [node.name.rpartition("_")[0] for node in model.graph.node]
        for name, model in models.items()
    }
    assert named["whole"] == named["first"] + named["second"]


def test_only_sent_bytes_cost():
    """The bytes of a message are those of the kept channels, whatever the first device makes."""
    space = small_space((2,), ("none", "skip", "conv3"), 6)
    architecture = Architecture(channels=(6,), operations=(("conv3", "conv3", "conv3"),))
    # Node 1 is read on both devices, so the first one makes all its channels.
    devices = {"stem": 0, "c0.0-1": 0, "c0.0-2": 0, "c0.1-2": 1, "c0.2": 1, "head": 1}
    kept = {"c0.0-1": (1, 4), "c0.0-2": (0,)}
    choice = OffloadChoice(architecture=architecture, devices=devices, kept=kept)
    network = slice_network(parts_of(space, architecture), choice)
    assert network.sent == kept
    assert network.by_name["c0.0-1"].made == (1, 4)
    assert network.by_name["c0.0-2"].made == (0,)
    assert network.by_name["c0.1-2"].read == (1, 4)
    assert network.by_name["c0.2"].read == tuple(range(6))
    moved = replace(choice, devices={**devices, "c0.1-2": 0}, kept={"c0.1-2": (3,), "c0.0-2": (3,)})
    moved = slice_network(parts_of(space, architecture), moved)
    # Both operands of the sum have one channel alone, and so has the sum.
    assert moved.by_name["c0.0-1"].made == tuple(range(6))
    assert moved.by_name["c0.2"].made == moved.by_name["head"].read == (3,)


def test_fewer_channels_are_never_slower_by_messages():
    """Bytes never rise if fewer channels are kept, and the planner prices those bytes."""
    space = small_space((2, 1))
    for seed in range(20):
        choice = replace(drawn_choice(space, seed), precision="float32")
        sizes = []
        for most in (6, 3, 1):
            kept = {tensor: ones[:most] for tensor, ones in choice.kept.items()}
            network = slice_network(
                parts_of(space, choice.architecture), replace(choice, kept=kept)
            )
            points = {name: int(np.prod(network.graph.shape(name)[1:])) for name in network.sent}
            wanted = {name: 4 * points[name] * len(ones) for name, ones in network.sent.items()}
            prices = every_price(priced(space), network)
            predicted = prices.predict(network)
            assert predicted.bytes == wanted
            sizes.append(sum(wanted.values()))
        assert sizes == sorted(sizes, reverse=True)


def every_price(prices, network):
    """Prices whose table also has the slices of a network, all of 1 µs."""
    from layoutsel.search.offload.pricing import OffloadPrices
    from layoutsel.search.prices import ClassPrices, PriceTable

    def priced_on_demand(missing):
        us = {str(one): 1.0 for one in missing}
        return PriceTable(
            classes={
                name: ClassPrices(us=us, spread_us=us) for name in set(prices.classes.values())
            }
        )

    return OffloadPrices(prices.routes, priced_on_demand, prices.table)
