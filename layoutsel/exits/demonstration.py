"""Demonstration on this machine: a network with exits is trained, planned, compiled and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import layoutsel
from layoutsel import documents
from layoutsel.device.threads import available_cores
from layoutsel.exits.building import load, plan_in
from layoutsel.exits.calibrating import calibrate
from layoutsel.exits.comparing import BESIDE, CHOSEN, Answered, busy_core, compare, contenders
from layoutsel.exits.demo_figures import (
    Timed,
    draw_distributions,
    exit_times,
    medians_in_turns,
    single_exits,
    single_networks,
    trade_off,
)
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_gantt import ShownRequest, measured_requests, write_exit_gantt
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.load_map import map_tables, write_load_map
from layoutsel.exits.load_table import LoadTable
from layoutsel.exits.network import ExitNetwork, read
from layoutsel.exits.observing import observe
from layoutsel.exits.pattern_times import PatternTimes, sequential
from layoutsel.exits.policy import Policy
from layoutsel.exits.policy_paths import fastest_path
from layoutsel.exits.samples import read_samples
from layoutsel.exits.steps import compile, plan
from layoutsel.exits.training.settings import EpochReport, TrainingTask
from layoutsel.exits.training.train import REPORT, TrainingReport, train
from layoutsel.report.curves import Series, write_curves

MAX_DROP, CONFIDENCE = 0.01, 0.95
"""Certified drop of accuracy, and the confidence of the certificate."""
COMPARE_S = 20.0
"""Time after which no round of a comparison begins, seconds."""
_PARTS = ("tune", "certify", "test")
"""Files of samples: to choose thresholds, for the certificate, and for reports."""
PICTURES = ("accuracy", "latencies", "latencies_loaded", "requests", "loads")
"""Names of the pictures."""
_WHERE = ("without a load", "another process on the first core")
"""Conditions of the two comparisons."""
_LOOSEST = 0.1
"""Largest drop of accuracy in the picture."""

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
    accuracies: tuple[Series, ...]
    """Accuracy on test samples by mean latency, milliseconds: over thresholds, and of others."""
    requests: tuple[ShownRequest, ...]
    """Measured requests, with exits parallel to the trunk if there is such an arrangement."""
    tables: Mapping[float, LoadTable]
    """Predicted arrangements by load, by the share of requests of which no exit is sure."""
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
    """Train a network, and present it.

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
    trained = train(task, folder, progress=progress)
    say(f"trained in {sum(one.seconds for one in trained.networks):.0f} s")
    return present(folder, folder, say)


def present(folder: Path, output: Path, say: Say) -> DemonstratedExits:
    """Observe, calibrate, plan, compile, time and draw a trained network.

    Parameters
    ----------
    folder
        Folder of :func:`train`; networks without exits in it are timed as well.
    output
        Folder for artifact and pictures.
    say
        Function that shows progress.

    Raises
    ------
    LayoutselError
        If a step fails.
    """
    trained = documents.from_json(
        TrainingReport, documents.load_json(folder / REPORT), file=str(folder / REPORT)
    )
    network = read(folder / "net.onnx")
    say("observing all exits on samples of three kinds: to tune, to certify, to test")
    tune, certify, test = (observe(network, folder / f"{part}.npz") for part in _PARTS)
    policy = calibrate(
        tune, max_drop=MAX_DROP, confidence=CONFIDENCE, times=_times(network), proof=certify
    )
    say("planning and compiling")
    planned = plan(network, policy, tune, cost="learned")
    artifact = output / "net.so"
    with compile(network, planned) as model:
        model.save(artifact)
        made = plan_in(model.compiled.header, str(artifact))
    alone = {one: _static(folder / one.file, made) for one in trained.networks[1:]}
    with contenders(artifact) as models:
        compiled = next(iter(models.values())).compiled
        samples = read_samples(folder / "test.npz", compiled.inputs, network.classes)
        say(f"answering {len(samples.inputs)} samples in turns")
        idle = compare(models, samples, time_limit_s=COMPARE_S)
        say("answering them again while another process computes on the first core")
        with busy_core(1.0):
            loaded = compare(models, samples, time_limit_s=COMPARE_S)
        beside = models.get(BESIDE, models[CHOSEN])
        assert isinstance(beside, ExitModel)
        requests = tuple(measured_requests(beside, samples))
    with load(artifact) as model:
        runs = {**exit_times(model), **{one.file: run for one, run in alone.items()}}
        times_us = medians_in_turns(runs, samples)
    say("drawing")
    policies = list(fastest_path(tune, _LOOSEST, _times(network), None))
    exits_us = np.array([times_us[name] for name in made.exits])
    accuracies = (
        trade_off(made, exits_us, policies, test),
        single_exits(exits_us, test),
        single_networks(times_us, trained.networks[1:]),
    )
    found = DemonstratedExits(
        policy=policy,
        plan=made,
        idle=idle,
        loaded=loaded,
        accuracies=accuracies,
        requests=requests,
        tables=map_tables(planned),
        files=(artifact, *(output / f"{name}.svg" for name in PICTURES)),
    )
    _draw(found, f"{trained.data}, {trained.size}")
    return found


def _draw(found: DemonstratedExits, network: str) -> None:
    """Draw all pictures of a demonstration."""
    _, accuracy, *latencies, requests, loads = found.files
    write_curves(
        found.accuracies,
        accuracy,
        title=f"{network}: accuracy on test samples by mean latency",
        x="milliseconds",
        y="share of right answers",
    )
    for file, answered, where in zip(latencies, (found.idle, found.loaded), _WHERE, strict=True):
        draw_distributions(answered, file, title=f"{network}: latencies, {where}")
    title = f"{network}: measured requests of median time"
    write_exit_gantt(found.requests, found.plan.exits, requests, title=title)
    title = f"{network}: best arrangement by load, predicted {found.plan.objective}"
    write_load_map(found.tables, loads, title=title)


def _times(network: ExitNetwork) -> PatternTimes:
    """Times of exits in turn, by their arithmetic operations."""
    return sequential(np.maximum.accumulate(network.flops).tolist())


def _static(file: Path, plan: ExitPlan) -> Timed:
    """Compile a network without exits, for as many threads as the trunk has."""
    kinds = {kind.name: kind for kind in plan.costs.workers}
    threads = kinds[plan.arrangement.trunk].threads
    model = layoutsel.compile_plan(file, layoutsel.plan(file, cost="learned", threads=threads))

    def run(inputs: Sequence[np.ndarray]) -> float:
        start_s = time.perf_counter()
        model(*inputs)
        return 1e6 * (time.perf_counter() - start_s)

    return run
