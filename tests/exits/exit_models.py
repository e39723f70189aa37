"""Compiled multi-exit networks with random weights, and their results by ONNX Runtime."""

from __future__ import annotations

import copy
import functools
import os
import time
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exit_networks import NETWORKS
from stage_gate import LIMIT_S

import layoutsel
from layoutsel.exits.arrangement import Arrangement, WorkerKind
from layoutsel.exits.batch_building import planned_batch
from layoutsel.exits.batched_network import with_batch
from layoutsel.exits.dividing import divide
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.network import read
from layoutsel.exits.policy import Policy
from layoutsel.exits.scores import RESULTS
from layoutsel.runtime.compiled import CompiledModel

# Without cores of their own, workers run on machines of one core as well.
WORKERS = tuple(WorkerKind(name=name, unit="cpu", threads=1, cores=0) for name in ("a", "b", "c"))
SIZES = (2, 4)
"""Batch sizes."""
ARRANGEMENTS = {"inline": "aaaa", "beside": "abbb", "apart": "abcb", "mixed": "aaba"}
"""Workers of the trunk and the branches."""


@functools.cache
def network(name: str):
    return read(NETWORKS[name]())


@functools.cache
def compiled(name: str, unit: str = "cpu") -> CompiledModel:
    scored = network(name).scored()
    plan = layoutsel.plan(scored, cost="roofline", threads=1, units=[unit])
    division = divide(plan.reads, plan.results, len(network(name).names))
    return layoutsel.compile_plan(scored, plan.in_stages(division.stages()))


def arranged(name: str, workers: str) -> Arrangement:
    """Arrangement by letters: the trunk's worker, and that of each branch; ``-`` is off."""
    early = len(network(name).names) - 1
    branches = tuple(None if one == "-" else one for one in workers[1 : 1 + early])
    return Arrangement(trunk=workers[0], branches=branches)


def policy_of(*thresholds: float | None, patience: int | None = None) -> Policy:
    """Policy of the early exits' thresholds."""
    return Policy(score="max_prob", thresholds=(*thresholds, None), patience=patience)


def started(
    name: str, workers: str = "abbb", policy: Policy | None = None, kinds=WORKERS, **options
) -> ExitModel:
    """Model whose exits are all sure by default."""
    exits = network(name).names
    policy = policy or policy_of(*[0.0] * (len(exits) - 1))
    arrangement = arranged(name, workers)
    return ExitModel(compiled(name), exits, arrangement, policy, workers=kinds, **options)


@functools.cache
def batches(name: str) -> dict[int, CompiledModel]:
    """Compiled models for several samples."""
    scored = network(name).scored()
    plan = layoutsel.plan(scored, cost="roofline", threads=1, units=["cpu"])
    found = {}
    for size in SIZES:
        model = with_batch(scored, size)
        own = planned_batch(model, plan, len(network(name).names), cost="roofline")
        found[size] = layoutsel.compile_plan(model, own, verify=False)
    return found


def with_batches(name: str) -> CompiledModel:
    """Compiled model that takes up to four requests at once; other tests' stay without batches."""
    own = copy.copy(compiled(name))
    own.header = dict(own.header)
    own.batch_with(batches(name))
    return own


def in_batches(name: str, policy: Policy, workers: str = "aaaa", **options: Any) -> ExitModel:
    """Model that takes up to four requests at once."""
    exits = network(name).names
    return ExitModel(
        with_batches(name), exits, arranged(name, workers), policy, workers=WORKERS, **options
    )


def images(name: str, count: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    (x,) = _session(name).get_inputs()
    return [3 * generator.standard_normal(x.shape).astype("float32") for _ in range(count)]


@functools.cache
def _session(name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more threads would be pinned, and stay with the session
    return onnxruntime.InferenceSession(
        network(name).scored().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def expected(name: str, x: np.ndarray) -> list[tuple[np.ndarray, float, int]]:
    """Values of the classes, score and predicted class of each exit."""
    found = _session(name).run(None, {"x": x})
    triples = [found[start : start + RESULTS] for start in range(0, len(found), RESULTS)]
    return [(values, float(score[0]), int(label[0])) for values, score, label in triples]


def check(answer, exits, want):
    """Check an answer against the results of ONNX Runtime."""
    values, score, label = want[exits.index(answer.exit)]
    np.testing.assert_allclose(answer.scores, values, rtol=1e-4, atol=1e-5)
    assert answer.score == pytest.approx(score, abs=1e-5)
    assert answer.label == label
    assert answer.us > 0


def drawn_exits(model, inputs, wanted, generator, count) -> set[str]:
    """Check the answers to randomly drawn inputs, and return the exits that gave them."""
    taken = set()
    for _ in range(count):
        index = generator.randrange(len(inputs))
        found = model(inputs[index])
        check(found, model.exits, wanted[index])
        taken.add(found.exit)
    assert not model.is_off
    return taken


def assert_ends_well(child: int) -> None:
    """Wait for a forked process, at most the tests' limit; its status is to be 0."""
    end = time.monotonic() + LIMIT_S
    ended, status = 0, None
    while not ended and time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    assert (ended, status) == (child, 0)


def recorded_exits(monkeypatch, runner) -> list[int]:
    """Exits of the answers that objects of the class `runner` give from now on."""
    taken = []
    answer = runner.answer

    def recorded(self, rule, inputs):
        found = answer(self, rule, inputs)
        if found is not None:
            taken.append(found.exit)
        return found

    monkeypatch.setattr(runner, "answer", recorded)
    return taken
