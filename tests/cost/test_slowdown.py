"""Slowdowns by load: what a learned model may never get wrong, and its files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import profile, workloads

from layoutsel.bundling.load_recording import undisturbed
from layoutsel.core.workload import Cost, Estimate
from layoutsel.cost.archive import read_archive, write_archive
from layoutsel.cost.conditions import Conditions
from layoutsel.cost.samples import Dataset, LoadSample, Provenance
from layoutsel.cost.slowdown import (
    ESTIMATE,
    LoadedRun,
    Sharing,
    Slowdown,
    fair_share,
    shipped_slowdown,
)
from layoutsel.cost.slowdown_training import run_of, train_slowdown
from layoutsel.device.core_load import CoreLoad
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

LOADS = [
    CoreLoad(busy=busy, streaming=streaming)
    for busy in ((0.25, 0.0), (0.5, 0.0), (0.75, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
    for streaming in (0.0, 1.0)
]


LAW = Sharing(crowd=0.3, even=0.4, apart=1.6)
"""Made-up coefficients."""


def sample(work, load: CoreLoad, cores: tuple[int, ...], noise: float = 1.0) -> LoadSample:
    idle_us = work.flops / 1e5
    law = np.exp(LAW.log_factor(run(load, us=idle_us, threads=len(cores), cores=cores)))
    return LoadSample(
        model="net",
        workload=work,
        decision=Decision(unit="cpu", layout="NHWC"),
        conditions=Conditions(threads=len(cores), cores=cores, load=load),
        us=idle_us * float(law) * noise,
        spread_us=0.01 * idle_us,
        idle_us=idle_us,
        runs=10,
        provenance=Provenance(profile=profile(), versions={"v": "1"}, date="2026-01-01"),
    )


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return [
        sample(work, load, cores, float(np.exp(0.03 * rng.standard_normal())))
        for work in workloads(12)
        for load in LOADS
        for cores in ((0, 1), (0,), (1,))
    ]


@pytest.fixture(scope="module")
def trained(samples):
    return train_slowdown(samples)


@pytest.fixture(scope="module", params=["trained", "shipped", "estimate"])
def model(request, trained):
    return {"trained": trained, "shipped": shipped_slowdown(), "estimate": ESTIMATE}[request.param]


def run(load: CoreLoad, *, us: float = 100.0, threads: int = 2, cores=()) -> LoadedRun:
    cost = Cost(time_us=Estimate(us, 1.0, "learned"), bytes_moved=Estimate(1e5))
    asked = Conditions(threads=threads, cores=cores, load=load)
    return LoadedRun.of(cost, asked, asked)


def test_it_learns_the_law_on_loads_that_were_left_out(samples):
    held = LOADS[4]
    model = train_slowdown([one for one in samples if one.conditions.load != held])
    asked = [one for one in samples if one.conditions.load == held]
    runs = [run_of(one) for one in asked]
    factors, widths = model.factors(runs)
    truth = np.exp([LAW.log_factor(one) for one in runs])
    assert np.mean(np.abs(factors / truth - 1)) < 0.05
    estimates, _ = ESTIMATE.factors(runs)
    assert np.mean(np.abs(factors / truth - 1)) < 0.3 * np.mean(np.abs(estimates / truth - 1))
    # The noise of the samples is 3 % in standard deviation, 2 % in half its interquartile range.
    assert ((widths > 0.005) & (widths < 0.05)).all()
    assert model.mape < 0.05


@settings(max_examples=60, deadline=None)
@given(
    busy=st.lists(st.floats(0, 2), min_size=2, max_size=2),
    more=st.lists(st.floats(0, 1), min_size=2, max_size=2),
    streaming=st.floats(0, 1),
    us=st.floats(1, 1e5),
    threads=st.sampled_from([1, 2]),
)
def test_more_load_on_the_busiest_core_never_makes_a_run_faster(
    model, busy, more, streaming, us, threads
):
    """For one thread, on any core. Two wait less for each other once the other core is as busy."""
    light = CoreLoad(busy=tuple(busy), streaming=streaming)
    if threads == 2:
        busiest = busy.index(max(busy))
        more = [extra if core == busiest else 0.0 for core, extra in enumerate(more)]
    heavy = CoreLoad(
        busy=tuple(a + b for a, b in zip(busy, more, strict=True)), streaming=streaming
    )
    factors, _ = model.factors([run(one, us=us, threads=threads) for one in (light, heavy)])
    assert 1 <= factors[0] <= factors[1] * (1 + 1e-6)


@settings(max_examples=30, deadline=None)
@given(busy=st.floats(0, 1), streams=st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_more_streaming_never_makes_a_run_faster(model, busy, streams):
    factors, _ = model.factors(
        [run(CoreLoad(busy=(busy, busy), streaming=streaming)) for streaming in sorted(streams)]
    )
    assert factors[0] <= factors[1] * (1 + 1e-6)


def test_two_threads_beside_one_busy_process_wait_for_the_slower(model):
    load = CoreLoad(busy=(1.0, 0.0), streaming=0.0)
    both, beside, on_it = (
        model.factors([run(load, threads=threads, cores=cores)])[0][0]
        for threads, cores in ((2, (0, 1)), (1, (1,)), (1, (0,)))
    )
    assert both > 1.5
    assert on_it > 1.5
    assert beside < 1.4


def test_the_slowdown_of_two_threads_is_that_of_the_busiest_core_and_no_more():
    """As recorded: 2.7 beside a free core, in short and in long runs; before, they waited for slices."""
    one, both = (CoreLoad(busy=busy, streaming=0.0) for busy in ((1.0, 0.0), (1.0, 1.0)))
    for us in (10.0, 1000.0):
        beside, held = (
            shipped_slowdown().factors([run(load, us=us)])[0][0] for load in (one, both)
        )
        assert 2 <= beside <= held < 4


@pytest.mark.parametrize(
    ("demand", "factor"), [(0.0, 1.0), (0.25, 4 / 3), (0.5, 2.0), (1.0, 2.0), (2.0, 3.0)]
)
def test_one_thread_gets_its_fair_share(demand, factor):
    assert fair_share(demand) == pytest.approx(factor)


def test_candidates_with_a_disturbed_time_without_load_are_dropped(samples):
    """Nothing is faster under a load, so one such sample makes all of its candidate wrong."""
    key = samples[0].workload.key
    wrong = [replace(one, us=0.5 * one.idle_us) if one is samples[0] else one for one in samples]
    kept = undisturbed(wrong)
    dropped = [one for one in samples if one not in kept]
    assert dropped
    assert {(one.workload.key, one.conditions.cores) for one in dropped} == {(key, (0, 1))}
    assert len(dropped) == len(LOADS)


def test_a_batch_gives_the_answers_of_single_questions(model):
    runs = [run(load, us=us) for load in LOADS for us in (3.0, 300.0)]
    assert model.applied(runs) == [model.applied([one])[0] for one in runs]


def test_training_is_deterministic(samples, trained):
    assert train_slowdown(samples) == trained


def test_too_few_samples_are_one_error(samples):
    with pytest.raises(LayoutselError, match="got 3 samples under load; expected at least"):
        train_slowdown(samples[:3])


def test_a_saved_model_predicts_the_same(trained, tmp_path):
    trained.save(tmp_path)
    assert Slowdown.load(tmp_path) == trained


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "got 1; expected"),
        ({"sharing": {"crowd": 0.1}}, "sharing"),
        ({"error": "large"}, "error: got"),
    ],
    ids=str,
)
def test_a_damaged_model_is_one_error(trained, tmp_path, change, message):
    trained.save(tmp_path)
    file = tmp_path / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(LayoutselError, match=f"{file}.*{message}"):
        Slowdown.load(tmp_path)


def test_samples_survive_their_file(samples, tmp_path):
    file = tmp_path / "loads.jsonl.xz"
    rounded = [replace(one, us=round(one.us, 4), idle_us=round(one.idle_us, 4)) for one in samples]
    write_archive(Dataset(loaded=tuple(rounded)), file)
    dataset, skipped = read_archive(file)
    assert not skipped
    assert not dataset.samples
    assert dataset.loaded == tuple(
        replace(one, spread_us=round(one.spread_us, 4)) for one in rounded
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle_us": 0.0},
        {"us": 0.0},
        {"conditions": Conditions(threads=2)},
        {"us": float("inf")},
    ],
    ids=str,
)
def test_nonsense_under_load_is_skipped(samples, tmp_path, wrong):
    file = tmp_path / "loads.jsonl.xz"
    write_archive(Dataset(loaded=(samples[0], replace(samples[1], **wrong))), file)
    dataset, skipped = read_archive(file)
    assert len(dataset.loaded) == 1
    assert sum(part.count for part in skipped) == 1
