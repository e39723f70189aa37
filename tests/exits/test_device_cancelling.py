"""A device and the host compute at once, and an answer stops both; with PoCL where there is no GPU."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from device_models import DEVICE, HOST, SURE, UNSURE, code_of
from exit_models import drawn_exits, policy_of
from exit_networks import Builder

from layoutsel.device.cancellation import CancelToken
from layoutsel.exits import request as request_module
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_code import ExitCode
from layoutsel.exits.network import read
from layoutsel.exits.scores import RESULTS
from tests.opencl.on_opencl import needs_device

pytestmark = needs_device


def deep(segments: int = 3, layers: int = 14):
    """Segments of many layers, each with an exit; so that a stopped trunk has much left."""
    net = Builder()
    x = net.input("x", (1, 8, 24, 24))
    for number in range(segments):
        for _ in range(layers if number else 1):
            x = net.conv(x, 16)
        net.head(x, f"e{number}")
    return read(net.model())


@pytest.fixture(scope="module")
def deep_code():
    return code_of(deep())


def deep_model(code: ExitCode, workers, *levels, **options) -> ExitModel:
    arrangement = Arrangement(trunk=workers[0], branches=workers[1:])
    kinds = code.found.costs.workers
    return ExitModel(
        code.of(arrangement),
        code.network.names,
        arrangement,
        policy_of(*levels),
        workers=kinds,
        **options,
    )


def image(code: ExitCode, seed: int) -> np.ndarray:
    shape = code.on_host(1).inputs[0].shape
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def intersect(one, other) -> bool:
    return max(one.start_us, other.start_us) < min(one.end_us, other.end_us)


@pytest.mark.parametrize("workers", [(DEVICE, HOST, HOST), (HOST, DEVICE, DEVICE)])
def test_device_and_host_compute_at_once(deep_code, slow, workers):
    """A branch and a later segment of the trunk each wait for the other to be in its run as well."""
    together = threading.Barrier(2)

    def meet(stage: str) -> None:
        if stage in ("branch0", "trunk1"):
            together.wait(30)

    slow(meet)
    with deep_model(deep_code, workers, UNSURE, UNSURE, answer="ordered") as model:
        _, runs = model.trace(image(deep_code, 0))
    branch = next(run for run in runs if run.name == "branch0")
    trunk = [run for run in runs if run.name.startswith("trunk")]
    assert branch.worker != trunk[0].worker
    assert any(intersect(branch, run) for run in trunk)


class TestCancelling:
    @pytest.fixture
    def tokens(self, monkeypatch):
        """Tokens of all requests, in order: two for each, the trunk's first."""
        made, make = [], CancelToken

        def token():
            made.append(make())
            return made[-1]

        monkeypatch.setattr(request_module, "CancelToken", token)
        return made

    @pytest.mark.parametrize("in_flight", [1, 4])
    def test_the_trunk_stops_on_every_early_sample(self, deep_code, tokens, in_flight):
        """It has begun fewer sub-graphs than a whole run does, and the device is idle at its end."""
        found = deep_code.found
        kinds = tuple(
            replace(kind, in_flight=in_flight) if kind.device else kind
            for kind in found.costs.workers
        )
        bounded = replace(
            deep_code, found=replace(found, costs=replace(found.costs, workers=kinds))
        )
        with deep_model(bounded, (DEVICE, HOST, HOST), SURE, UNSURE) as model:
            tokens.clear()
            model.all(image(deep_code, 0))
            whole = tokens[0].begun
            for seed in range(20):
                tokens.clear()
                answer, runs = model.trace(image(deep_code, seed))
                assert answer.exit == model.exits[0]
                assert answer.cancelled
                assert tokens[0].cancelled
                assert tokens[0].begun < whole
                assert not all(run.complete for run in runs if run.worker == DEVICE)

    def test_no_result_is_that_of_an_earlier_request(self, deep_code, slow):
        """Early answers cancel the device at random times; the next request has another input."""
        generator = random.Random(0)
        session = onnxruntime.InferenceSession(
            deep_code.network.scored().SerializeToString(), providers=["CPUExecutionProvider"]
        )
        inputs = [image(deep_code, seed) for seed in range(6)]
        wanted = []
        for x in inputs:
            flat = session.run(None, {"x": x})
            rows = [flat[at : at + RESULTS] for at in range(0, len(flat), RESULTS)]
            wanted.append(
                [(values, float(score[0]), int(label[0])) for values, score, label in rows]
            )
        levels = [float(np.median([want[e][1] for want in wanted])) for e in range(2)]

        def pause(_stage: str) -> None:
            if generator.random() < 0.3:
                time.sleep(generator.choice((0, 5e-5, 3e-4, 1e-3)))

        slow(pause)
        with deep_model(deep_code, (DEVICE, HOST, HOST), *levels) as model:
            taken = drawn_exits(model, inputs, wanted, generator, 400)
        assert len(taken) > 1
