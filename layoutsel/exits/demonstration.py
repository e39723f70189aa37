"""Demonstration on this machine: a network with exits is trained, planned, compiled and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import layoutsel
from layoutsel.device.threads import available_cores
from layoutsel.exits.building import load, plan_in
from layoutsel.exits.calibrating import calibrate
from layoutsel.exits.comparing import Answered, busy_core, compare, contenders
from layoutsel.exits.demo_figures import draw_distributions, exit_times, single_exits, trade_off
from layoutsel.exits.exit_gantt import write_exit_gantt
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.network import ExitNetwork, read
from layoutsel.exits.observing import observe
from layoutsel.exits.pattern_times import PatternTimes, sequential
from layoutsel.exits.policy import Policy
from layoutsel.exits.policy_paths import fastest_path
from layoutsel.exits.samples import read_samples
from layoutsel.exits.steps import compile, plan
from layoutsel.exits.training.settings import EpochReport, TrainingTask
from layoutsel.exits.training.train import NetworkReport, train
from layoutsel.report.curves import Series, write_curves
from layoutsel.runtime.samples import random_inputs

MAX_DROP, CONFIDENCE = 0.01, 0.95
"""Certified drop of accuracy, and the confidence of the certificate."""
TRAIN_LIMIT_S = 600.0
"""Time limit of the training, seconds."""
COMPARE_S = 20.0
"""Time after which no round of a comparison begins, seconds."""
_PARTS = ("tune", "certify", "test")
"""Files of samples: to choose thresholds, for the certificate, and for reports."""
_PICTURES = ("accuracy.svg", "latencies.svg", "latencies_loaded.svg", "requests.svg")
"""Files of the pictures."""
_WHERE = ("without a load", "another process on the first core")
"""Conditions of the two comparisons."""
_LOOSEST = 0.1
"""Largest drop of accuracy in the picture."""
_REPEATS = 100
"""Number of measured runs of a network without exits."""

Say = Callable[[str], None]
"""Function that shows a line of text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DemonstratedExits:
    """Results of a demonstration."""

    policy: Policy
    """Certified policy."""
    plan: ExitPlan
    """Exit plan in the artifact."""
    idle: Mapping[str, Answered]
    """Answers by arrangement without a load."""
    loaded: Mapping[str, Answered]
    """Answers by arrangement while another process computes."""
    files: tuple[Path, ...]
    """Artifact and pictures."""


def demonstrate(
    folder: Path,
    say: Say,
    *,
    data: str = "mnist5k",
    size: str = "demo",
    static: bool = False,
    progress: Callable[[EpochReport], None] = lambda _report: None,
) -> DemonstratedExits:
    """Train, observe, calibrate, plan, compile and time a network, with and without a load.

    Parameters
    ----------
    folder
        Folder for networks, data, artifact and pictures.
    say
        Function that shows progress.
    data, size
        Data set and size of the network, as in :class:`TrainingTask`.
    static
        True to train and time networks that end at each exit alone as well.
    progress
        Receives a report about each pass over the training data.

    Raises
    ------
    LayoutselError
        If a step fails.
    """
    cores = len(available_cores())
    say(f"training {data} on {cores} threads")
    task = TrainingTask(data=data, size=size, static=static, threads=cores)
    trained = train(task, folder, limit_s=TRAIN_LIMIT_S, progress=progress)
    say(f"trained in {sum(one.seconds for one in trained.networks):.0f} s")
    network = read(folder / "net.onnx")
    say("observing all exits on samples of three kinds: to tune, to certify, to test")
    tune, certify, test = (observe(network, folder / f"{part}.npz") for part in _PARTS)
    policy = calibrate(
        tune, max_drop=MAX_DROP, confidence=CONFIDENCE, times=_times(network), proof=certify
    )
    say("planning and compiling")
    planned = plan(network, policy, tune, cost="learned")
    artifact = folder / "net.so"
    with compile(network, planned) as model:
        model.save(artifact)
        made = plan_in(model.compiled.header, str(artifact))
    with contenders(artifact) as models:
        compiled = next(iter(models.values())).compiled
        samples = read_samples(folder / "test.npz", compiled.inputs, network.classes)
        say(f"answering {len(samples.inputs)} samples in turns")
        idle = compare(models, samples, time_limit_s=COMPARE_S)
        say("answering them again while another process computes on the first core")
        with busy_core(1.0):
            loaded = compare(models, samples, time_limit_s=COMPARE_S)
    with load(artifact) as model:
        times_us = exit_times(model, samples)
    say("drawing")
    files = [folder / name for name in _PICTURES]
    policies = list(fastest_path(tune, _LOOSEST, _times(network), None))
    series = [trade_off(made, times_us, policies, test), *single_exits(times_us, test)]
    if static:
        series += [_static(folder, one, made) for one in trained.networks[1:]]
    write_curves(
        series,
        files[0],
        title=f"{data}: accuracy on test samples by mean latency",
        x="milliseconds",
        y="share of right answers",
    )
    for file, found, where in zip(files[1:], (idle, loaded), _WHERE, strict=False):
        draw_distributions(found, file, title=f"{data}: latencies, {where}")
    write_exit_gantt(_beside(made), files[-1])
    return DemonstratedExits(
        policy=policy, plan=made, idle=idle, loaded=loaded, files=(artifact, *files)
    )


def _times(network: ExitNetwork) -> PatternTimes:
    """Times of exits in turn, by their arithmetic operations."""
    return sequential(np.maximum.accumulate(network.flops).tolist())


def _static(folder: Path, network: NetworkReport, plan: ExitPlan) -> Series:
    """Latency, milliseconds, and accuracy of a network that was trained with one exit alone."""
    kinds = {kind.name: kind for kind in plan.costs.workers}
    threads = kinds[plan.arrangement.trunk].threads
    file = folder / network.file
    model = layoutsel.compile_plan(file, layoutsel.plan(file, cost="learned", threads=threads))
    inputs = random_inputs(model.inputs)
    times_s = []
    for _ in range(_REPEATS):
        start_s = time.perf_counter()
        model(*inputs)
        times_s.append(time.perf_counter() - start_s)
    points = ((1e3 * float(np.median(times_s)), network.test_accuracies[-1]),)
    return Series(name=f"{file.stem}, trained alone", points=points, is_line=False)


def _beside(plan: ExitPlan) -> ExitPlan:
    """The plan, or the best one with exits parallel to the trunk, which an answer cancels."""
    for one in (plan.arrangement, *(other.arrangement for other in plan.baselines)):
        if set(one.branches) - {None, one.trunk}:
            return replace(plan, arrangement=one)
    return plan
