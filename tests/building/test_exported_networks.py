"""Exported networks through the whole pipeline, under decisions drawn at random: never wrong, whatever is chosen."""

from __future__ import annotations

import random

import numpy as np
import pytest
from exported import EXPORTERS, NAMES, exported
from reference import random_feeds, relative_error, run_onnx
from tiers import tiered

from layoutsel.building.build import generate_code, lower_decisions
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.device.signature import signatures
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.units.base import select
from tvm_passes.cpu.host import has_bf16, host_target

AVAILABLE = list(select())
TOLERANCES = {"f32-grade": 1e-4, "bf16": 1e-1}
"""Relative L2 error of a network whose sub-graphs all round, wherever they can."""


def compile_decisions(session: Session, decisions) -> CompiledModel:
    lowered = lower_decisions(session.functions, decisions)
    assert dict(lowered.decisions) == dict(decisions), "a legal candidate failed to build"
    specs = {"inputs": session.model.inputs, "outputs": session.model.outputs}
    header = {key: [one.to_json() for one in signatures(value)] for key, value in specs.items()}
    executable = generate_code(lowered.module, lowered.target)
    return CompiledModel(executable.jit(), lowered.weights, {**header, "threads": 2})


def check(session: Session, decisions, tolerance: float = 1e-5) -> None:
    feeds = random_feeds(session.model.inputs)
    want = run_onnx(session.model.onnx, feeds)
    got = compile_decisions(session, decisions)(**feeds)
    got = got if isinstance(got, tuple) else (got,)
    for one, other in zip(got, want, strict=True):
        assert relative_error(one, other) <= tolerance


@pytest.mark.parametrize("unit", AVAILABLE)
@pytest.mark.parametrize("exporter", tiered(EXPORTERS, ("dynamo",)))
@pytest.mark.parametrize("name", tiered(NAMES, NAMES[::3]))
def test_random_layouts_on_one_unit(name, exporter, unit):
    session = Session.open(exported(name, exporter), units=[unit, "cpu"], threads=2)
    offers = Offers.of(session)
    draw = random.Random(name + exporter)
    decisions = {}
    for subgraph, candidates in offers.candidates.items():
        mine = [decision for decision in candidates.decisions if decision.unit == unit]
        decisions[subgraph] = draw.choice(mine or candidates.decisions)
    check(session, decisions)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", tiered([0, 1, 2, 3], (0,)))
def test_random_units_and_layouts(name, seed):
    session = Session.open(exported(name, "dynamo"), threads=2)
    offers = Offers.of(session)
    draw = random.Random(seed)
    decisions = {key: draw.choice(value.decisions) for key, value in offers.candidates.items()}
    check(session, decisions)


@pytest.mark.skipif(not has_bf16(host_target()), reason="the CPU has no AVX512_BF16")
@pytest.mark.parametrize("mode", TOLERANCES)
@pytest.mark.parametrize("name", NAMES)
def test_random_precisions_and_layouts(name, mode):
    session = Session.open(exported(name, "dynamo"), threads=2, precision=mode)
    offers = Offers.of(session)
    draw = random.Random(name + mode)
    decisions = {}
    for subgraph, candidates in offers.candidates.items():
        inexact = [decision for decision in candidates.decisions if decision.precision != "f32"]
        decisions[subgraph] = draw.choice(inexact or candidates.decisions)
    check(session, decisions, TOLERANCES[mode])


def test_results_are_fresh_arrays():
    session = Session.open(exported("resnet", "legacy"), threads=2)
    offers = Offers.of(session)
    decisions = {key: value.decisions[0] for key, value in offers.candidates.items()}
    model = compile_decisions(session, decisions)
    feeds = random_feeds(session.model.inputs)
    first = model(**feeds)
    kept = first.copy()
    model(**{key: value * 2 for key, value in feeds.items()})
    np.testing.assert_array_equal(first, kept)
