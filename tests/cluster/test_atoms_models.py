"""Plans in atoms: the same results as the whole, bit for bit, however the atoms are divided into segments."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

import layoutsel
from layoutsel.api import build_as_planned
from layoutsel.cluster.atoms import MOST_ATOMS, plan_in_atoms
from layoutsel.compile.generic import offered
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.session import Session
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from tests.tiers import tiered
from tvm_passes.errors import LayoutselError

LIMIT_S = 60
NETWORKS = [
    "light:squeezenet",
    "light:shufflenet",
    "light:inception_v1",
    "light:densenet121",
    "light:resnet50",
    "arch:mobilenet_v2",
    "arch:unet",
    "arch:vit_small_16",
    "arch:yolo_tiny",
    "arch:bert_base_6l",
    "arch:mixer_s16",
    "zoo:segformer_b0",
    "zoo:bert_mini",
]
DAILY = ["light:squeezenet", "light:shufflenet"]


@dataclass(frozen=True)
class Pair:
    """One plan as a whole and in atoms."""

    whole: CompiledModel
    atoms: CompiledModel


@pytest.fixture(scope="module", params=tiered(NETWORKS, DAILY))
def pair(request):
    session = Session.open(request.param, threads=2, calibrate=False)
    plan = best_plan(session, priced_problem(offered(session), "roofline"))
    staged = plan_in_atoms(plan, session.graph)
    assert 2 < len(staged.stages) <= MOST_ATOMS
    return Pair(*(build_as_planned(session, one, verify=False) for one in (plan, staged)))


def in_segments(model, inputs, sizes):
    """Run segments of so many atoms, one after the other; returns the model's outputs."""
    tensors = {f"input.{index}": value for index, value in enumerate(inputs)}
    names = [stage.name for stage in model.stages]
    with model.worker(threads=2) as worker:
        start = 0
        while start < len(names):
            size = next(sizes)
            segment = names[start : start + size]
            start += size
            tensors.update(worker.run(segment, tensors).result(LIMIT_S))
    return [tensors[f"output.{index}"] for index in range(len(model.outputs))]


def test_atoms_compute_the_same_as_the_whole(pair):
    inputs = random_inputs(pair.whole.inputs)
    want = pair.whole.run_all(inputs)[: len(pair.whole.outputs)]
    chance = random.Random(0)
    ways = {
        "as a whole": pair.atoms.run_all(inputs),
        "one by one": in_segments(pair.atoms, inputs, iter(lambda: 1, 0)),
        "in segments": in_segments(pair.atoms, inputs, iter(lambda: chance.randint(1, 9), 0)),
    }
    for way, found in ways.items():
        for got, one in zip(found, want, strict=False):
            np.testing.assert_array_equal(got, one, err_msg=way)


def test_segments_hold_what_others_need(pair):
    """Tensors that only a segment's own atoms read do not leave it."""
    model = pair.atoms
    names = [stage.name for stage in model.stages]
    with model.worker() as worker:
        whole = worker.chain(names)
        assert {one.name for one in whole.outputs} == {
            one.name
            for stage in model.stages
            for one in stage.outputs
            if one.name.startswith("output.")
        }
        middle = len(names) // 2
        front, back = worker.chain(names[:middle]), worker.chain(names[middle:])
        crossing = {one.name for one in front.outputs if not one.name.startswith("output.")}
        assert crossing == {one.name for one in back.inputs if not one.name.startswith("input.")}
        for wrong in ([], names[::-1], [names[0]] * 2, ["none"]):
            with pytest.raises(LayoutselError, match="expected one"):
                worker.chain(wrong)


def test_a_saved_artifact_runs_in_atoms(pair, tmp_path):
    loaded = layoutsel.load(pair.atoms.save(tmp_path / "model.so"))
    inputs = random_inputs(loaded.inputs)
    for got, one in zip(loaded.run_all(inputs), pair.whole.run_all(inputs), strict=True):
        np.testing.assert_array_equal(got, one)
    layouts = {one.layout for stage in loaded.stages for one in stage.outputs}
    assert layouts - {""}
