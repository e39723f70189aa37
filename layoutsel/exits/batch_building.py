"""Code of a multi-exit network for several requests at once: planned, compiled, checked, timed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto

import layoutsel
from layoutsel import documents
from layoutsel.core.precision import precision_mode
from layoutsel.errors import NoBatches
from layoutsel.exits.arrangement import devices_in
from layoutsel.exits.batch_segments import in_segments
from layoutsel.exits.batch_times import TIMES, BatchTimes, shares_reaching
from layoutsel.exits.batched_network import with_batch
from layoutsel.exits.costs import PricedExits, subgraph_times_us
from layoutsel.exits.dividing import divide
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.explain import batch_line
from layoutsel.exits.lanes import lanes_of
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.patterns import pattern_table
from layoutsel.exits.stage_times import stage_costs_us
from layoutsel.planning.pins import UnsatisfiedPin
from layoutsel.planning.plan import Plan
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs, rel_l2_err

logger = logging.getLogger(__name__)

_SEGMENT_US = 5.0
"""Time of a segment outside of its kernels, as measured on one machine, microseconds."""
_ROUNDS = 15
"""Number of rounds in which the segments of all sizes are timed."""
_TIMING_S = 2.0
"""Time limit of these rounds, seconds; one is always completed."""


def add_batches(
    model: ExitModel,
    network: ExitNetwork,
    found: PricedExits,
    plan: ExitPlan,
    most: int,
    **options: Any,
) -> BatchTimes | None:
    """Add code for 2, 4, 8, … requests at once to a network, up to the largest batch that pays.

    The sizes have the decisions of the network for one sample, so that they share its weights and
    layouts. Every one of them is checked against the results of single samples.

    Parameters
    ----------
    model
        The compiled network.
    network
        The network.
    found
        Its plans and division.
    plan
        Plan with the arrangement that the batches run on.
    most
        Largest number of requests at once.
    **options
        Options of :func:`layoutsel.compile_plan`.

    Returns
    -------
    BatchTimes or None
        Measured times; None if no batch pays.

    Raises
    ------
    NoBatches
        If the network cannot take several samples at once, or the arrangement has several workers
        or a device.
    """
    if plan.arrangement.is_beside:
        raise NoBatches(
            "batches run on one worker: got a plan with exits beside the trunk; expected all exits "
            "on the trunk's worker, or off. Pin them there, or compile without batches"
        )
    if devices := devices_in(plan.arrangement, plan.costs.workers):
        raise NoBatches(
            f"batches run on the host: got a plan with stages on {', '.join(devices)}; expected "
            "one on the host's cores. Plan with units of the host, or compile without batches"
        )
    networks = {size: with_batch(network.scored(), size) for size in _sizes(most)}
    shared = {name: one for name, one in options.items() if name in ("logs", "limits")}
    times, plans = _fastest(model.compiled, found, plan, networks, shared)
    if times.largest() > 1:
        made = {
            size: layoutsel.compile_plan(networks[size], one, **options)
            for size, one in plans.items()
            if size <= times.largest()
        }
        for size, one in made.items():
            _check_equal(model.compiled, one, size, plans[size])
        model.compiled.header[TIMES] = documents.to_json(times)
        model.batch_with(made)
        times = _timed(model, plan, times)
        model.compiled.header[TIMES] = documents.to_json(times.up_to(times.largest()))
        model.batch_with({size: one for size, one in made.items() if size <= times.largest()})
    if times.largest() == 1:
        model.compiled.header.pop(TIMES, None)
        logger.warning("no batch pays: %s", batch_line(times))
        return None
    return times.up_to(times.largest())


def _sizes(most: int) -> list[int]:
    """Powers of two up to the largest size, and that one itself."""
    powers = [1 << n for n in range(1, most.bit_length()) if 1 << n <= most]
    return sorted({*powers, most})


def _fastest(
    compiled: CompiledModel,
    found: PricedExits,
    plan: ExitPlan,
    networks: Mapping[int, ModelProto],
    options: Mapping[str, Any],
) -> tuple[BatchTimes, dict[int, Plan]]:
    """Plan all sizes for the number of threads with the least time per request.

    Many threads that a single request would keep waiting for each other may pay for a batch.
    """
    stages, exits, most = found.division.stages(), len(plan.exits), max(networks)
    singles = {threads: one.in_stages(stages) for threads, one in found.plans.items()}
    largest = {
        threads: planned_batch(networks[most], one, exits, **options)
        for threads, one in singles.items()
    }

    def predicted(threads: int, plans: Mapping[int, Plan]) -> BatchTimes:
        return _predicted(compiled, plan, {1: singles[threads], **plans}, threads)

    threads = min(
        largest, key=lambda count: predicted(count, {most: largest[count]}).batch_us(most)
    )
    plans = {
        size: largest[threads]
        if size == most
        else planned_batch(one, singles[threads], exits, **options)
        for size, one in networks.items()
    }
    return predicted(threads, plans), plans


def planned_batch(model: ModelProto, single: Plan, exits: int, **options: Any) -> Plan:
    """Plan a batch size with the decisions for one sample, in stages.

    Parameters
    ----------
    model
        Network for several samples.
    single
        Plan for one sample.
    exits
        Number of exits.
    **options
        Options of :func:`layoutsel.plan` beyond those that `single` states.

    Raises
    ------
    NoBatches
        If it has other sub-graphs, or one of them cannot have its decision.
    """
    given: dict[str, Any] = {
        "threads": single.threads,
        "precision": single.precision,
        "max_rel_error": single.max_rel_error,
        "units": sorted({one.unit for one in single.decisions.values()}),
        **options,
    }
    ids = [one.id for one in layoutsel.plan(model, **{**given, "cost": "roofline"}).subgraphs]
    if len(ids) != len(single.subgraphs):
        raise NoBatches(
            f"the network for several samples has {len(ids)} sub-graphs: expected those for one, "
            f"{len(single.subgraphs)}. Compile it without batches"
        )
    # Identifiers depend on shapes; the order does not.
    decisions = [one.decision for one in single.subgraphs]
    pins = [
        f"{re.escape(id_)}={one.placed_unit}:{one.layout}:{one.precision}:{one.algorithm}"
        for id_, one in zip(ids, decisions, strict=True)
    ]
    try:
        plan = layoutsel.plan(model, **given, pins=pins)
    except UnsatisfiedPin as error:
        raise NoBatches(
            f"a decision for one sample is not possible for several: {error}. Compile the network "
            "without batches"
        ) from error
    for one, wanted in zip(plan.subgraphs, single.subgraphs, strict=True):
        if (one.operators, one.decision) != (wanted.operators, wanted.decision):
            raise NoBatches(
                f"sub-graph {one.id} for several samples: got {', '.join(one.operators)} as "
                f"{one.decision}; expected {', '.join(wanted.operators)} as {wanted.decision}, as "
                "for one sample. Compile the network without batches"
            )
    return plan.in_stages(divide(plan.reads, plan.results, exits).stages())


def _predicted(
    compiled: CompiledModel, plan: ExitPlan, plans: Mapping[int, Plan], threads: int
) -> BatchTimes:
    """Predict times: those of one sample, times the ratio of the cost model's prices."""
    lanes = lanes_of(compiled.stages, len(plan.exits), plan.arrangement)
    segments = in_segments(lanes)
    assert segments is not None
    worker = next(
        kind.name for kind in plan.costs.workers if kind.threads == threads and not kind.device
    )
    known_us = stage_costs_us(plan.costs, worker)
    prices = {size: _stage_prices_us(one) for size, one in plans.items()}

    def stage_us(size: int, name: str) -> float:
        own, alone = (prices[n][name] for n in (size, 1))
        return known_us[name] * own / alone if alone else 0.0

    names = [entry.name for entry in compiled.stages]
    return BatchTimes(
        threads=threads,
        single_us=plan.latencies.mean_us,
        segments_us={
            str(size): tuple(
                _SEGMENT_US + sum(stage_us(size, names[number]) for number in numbers)
                for numbers, _ in segments
            )
            for size in plans
        },
        shares=shares_reaching(plan.patterns, len(plan.exits), [exits for _, exits in segments]),
    )


def _stage_prices_us(plan: Plan) -> dict[str, float]:
    """Predicted time of each stage by its name, microseconds."""
    prices = subgraph_times_us(plan)
    return {name: sum(prices[id_] for id_ in ids) for name, ids in plan.held_by_stages.items()}


def _check_equal(single: CompiledModel, batch: CompiledModel, size: int, plan: Plan) -> None:
    """Compare the results of a batch with those of its samples alone, and reject differences."""
    tolerance = precision_mode(plan.precision, plan.max_rel_error).tolerance
    samples = [random_inputs(single.inputs, seed) for seed in range(size)]
    alone = [single.run_all(inputs) for inputs in samples]
    together = batch.run_all([np.concatenate(arrays) for arrays in zip(*samples, strict=True)])
    for number, output in enumerate(single.outputs):
        if output.dtype.startswith("int"):
            continue  # the class of nearly equal values may differ
        wanted = np.concatenate([results[number] for results in alone])
        error = rel_l2_err(together[number], wanted)
        if not error <= tolerance:
            raise NoBatches(
                f"output {output.name!r} of {size} samples differs from that of single ones: got a "
                f"relative L2 error of {error:.1e}; expected at most {tolerance:g}, as "
                "samples must not depend on others. Compile the network without batches"
            )


def _timed(model: ExitModel, plan: ExitPlan, predicted: BatchTimes) -> BatchTimes:
    """Time single requests of all observed patterns, and the segments of all sizes, in turns."""
    batches = model.batches(plan.arrangement)
    assert batches is not None
    inputs = random_inputs(model.compiled.inputs)
    sure, samples = pattern_table(plan.patterns, len(plan.exits))
    patterns = [tuple(map(int, np.flatnonzero(row[:-1]))) for row in sure]
    singles: list[list[float]] = []
    segments: dict[int, list[list[float]]] = {size: [] for size in batches.sizes}
    end_s = time.monotonic() + _TIMING_S
    for number in range(_ROUNDS):
        if number and time.monotonic() > end_s:
            break
        model.forced((), inputs, plan.arrangement)
        singles.append([model.forced(one, inputs, plan.arrangement).us for one in patterns])
        for size, found in segments.items():
            batches.segment_times_us(size)
            found.append(batches.segment_times_us(size))
    # The least times: other work on the cores lengthens batches and single requests unequally.
    return replace(
        predicted,
        single_us=float(np.min(singles, axis=0) @ samples) / float(samples.sum()),
        segments_us={
            str(size): tuple(np.min(found, axis=0).tolist()) for size, found in segments.items()
        },
    )
