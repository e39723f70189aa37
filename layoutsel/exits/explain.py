"""Explanations of exit plans: tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.batch_times import BatchTimes
from layoutsel.exits.exit_pins import OFF
from layoutsel.exits.exit_plan import ExitPlan, ExitRace, OtherArrangement
from layoutsel.exits.latencies import OBJECTIVES, Latencies, LatencyModel
from layoutsel.exits.simulate import TRUNK
from layoutsel.report.plan_tables import milliseconds, new_table

_FIGURES = (*OBJECTIVES, "busy", "waste")
"""Figures of :class:`Latencies` in tables, without their unit."""

_ANSWER = {"first": "first sure result", "ordered": "sure result earliest in the order of exits"}
"""Answer by rule of :data:`layoutsel.exits.answers.ANSWERS`."""


def summary(plan: ExitPlan) -> Iterator[Any]:
    """Yield tables and lines about the arrangement, its latencies, and the baselines."""
    yield from (_headline(plan), "", _stages_table(plan), *_device_lines(plan))
    yield from ("", _latencies_table(plan))
    for name, reason in reasons(plan).items():
        yield f"{name} is off: {reason}"


def explanation(plan: ExitPlan) -> Iterator[Any]:
    """Yield tables and lines about a plan: its summary, other choices, and the race."""
    yield from summary(plan)
    if plan.forced:
        yield from ("", forced_table(plan, plan.forced))
    if plan.race is not None:
        yield race_line(plan, plan.race)


def race_line(plan: ExitPlan, race: ExitRace) -> str:
    """Line about the arrangements that a race measured, and the one that was kept."""
    times = ", ".join(f"{name} {milliseconds(us)}" for name, us in race.times_us.items())
    return f"measured in turns on this machine ({plan.objective}): {times}; kept: {race.kept}"


def batch_line(times: BatchTimes) -> str:
    """Line about the batches of a server, and their time per request."""
    each = (f"{size} {times.batch_us(size) / size:,.1f} us" for size in times.sizes)
    return f"time per request of a full batch, by its size: {', '.join(each)}"


def reasons(plan: ExitPlan) -> Mapping[str, str]:
    """Reason why an exit is off, by its name."""
    return {
        name: _reason(plan, number, name)
        for number, name in enumerate(plan.exits[:-1])
        if plan.arrangement.branches[number] is None
    }


def _reason(plan: ExitPlan, number: int, name: str) -> str:
    if plan.policy.thresholds[number] is None:
        return "the policy has no threshold for it, and no other exit that runs needs it"
    samples = sum(pattern.samples for pattern in plan.patterns)
    if not samples:
        return "no samples were observed. Observe the network on data and plan again"
    if not any(number in pattern.exits for pattern in plan.patterns):
        return f"it is sure of none of {samples:,} samples"
    running = [one for one in plan.forced if one.name.startswith(f"{name} on ")]
    if not running:
        return f"it is pinned so, or has no worker within {plan.costs.cores} cores"
    best = min(running, key=lambda one: _value_us(plan, one.latencies))
    return f"with {best.name}, the {plan.objective} becomes {_change(plan, best)}"


def _headline(plan: ExitPlan) -> str:
    samples = sum(pattern.samples for pattern in plan.patterns)
    return (
        f"{plan.model_name or 'network'}: {plan.objective} {milliseconds(plan.value_us)} over "
        f"{samples:,} samples; no arrangement is below {milliseconds(plan.bound_us)}, a gap of "
        f"{plan.gap:.2%}"
    )


def _stages_table(plan: ExitPlan) -> Table:
    """Table of the worker of each stage, and the samples that each exit answers."""
    model = LatencyModel(plan.costs, plan.policy, plan.patterns, answer=plan.answer)
    known_us = model.simulator.known_us(plan.arrangement)
    exits, _ = model.rule(model.known_us(plan.arrangement), model.sure)
    total = model.samples.sum()
    sure = (model.sure * model.samples[:, None]).sum(axis=0) / total
    answers = np.bincount(exits, weights=model.samples, minlength=len(plan.exits)) / total
    table = new_table(
        *("stage", "worker", "work", "result after", "sure", "answers"),
        right=("work", "result after", "sure", "answers"),
        title=f"stages; the answer is the {_ANSWER[plan.answer]}",
    )
    trunk = plan.arrangement.trunk
    work_us = sum(map(sum, plan.costs.trunk_us[trunk]))
    table.add_row(TRUNK, trunk, milliseconds(work_us), "", "", "")
    for number, worker in enumerate(plan.arrangement.branches):
        name = plan.exits[number]
        if worker is None:
            table.add_row(name, OFF, "", "", f"{sure[number]:.1%}", "")
            continue
        may_answer = bool(model.may_answer[number])
        table.add_row(
            name,
            f"{worker}, {'between segments' if worker == trunk else 'beside the trunk'}",
            milliseconds(sum(plan.costs.branch_us[worker][number])),
            milliseconds(float(known_us[number])),
            f"{sure[number]:.1%}" if may_answer else "never",
            f"{answers[number]:.1%}" if may_answer else "for other exits",
        )
    table.add_row(
        plan.exits[-1], trunk, "", milliseconds(float(known_us[-1])), "", f"{answers[-1]:.1%}"
    )
    return table


def _device_lines(plan: ExitPlan) -> Iterator[str]:
    """Yield a line about each device that the arrangement uses."""
    trunk = plan.arrangement.trunk
    for kind in plan.costs.workers:
        if kind.device and kind.name in plan.arrangement.workers:
            count = "one sub-graph" if kind.in_flight == 1 else f"{kind.in_flight} sub-graphs"
            line = f"{kind.name} is the device {kind.device}, with at most {count} in its queue"
            workers = enumerate(plan.arrangement.branches) if kind.name == trunk else ()
            times = [
                plan.costs.copy_us.get(f"{trunk}>{one}", ())[tap : tap + 1] for tap, one in workers
            ]
            copies = [us for some in times for us in some]
            if copies:
                line += f"; it copies a tap to the host in {max(copies):,.0f} us at most"
            yield line


def _latencies_table(plan: ExitPlan) -> Table:
    """Table of all figures of the plan and the baselines; the objective has a star."""
    figures = [f"{name} *" if name == plan.objective else name for name in _FIGURES]
    title = "predicted for one request, milliseconds"
    table = new_table("arrangement", *figures, right=figures, title=title)
    chosen = ("this plan", plan.latencies)
    for title, one in (chosen, *((other.name, other.latencies) for other in plan.baselines)):
        times_us = (float(getattr(one, f"{name}_us")) for name in _FIGURES)
        table.add_row(title, *(f"{us / 1e3:.3f}" for us in times_us))
    return table


def forced_table(plan: ExitPlan, others: Sequence[OtherArrangement]) -> Table:
    """Table of the costs of other choices, the rest arranged at its best."""
    table = new_table(
        *("choice", f"{plan.objective} becomes", "workers of trunk and exits"),
        title="other choices, the rest at its best",
    )
    for other in others:
        table.add_row(other.name, _change(plan, other), workers_text(other.arrangement))
    return table


def workers_text(arrangement: Arrangement) -> str:
    """Workers of the trunk and of each exit."""
    return " ".join((arrangement.trunk, *(one or OFF for one in arrangement.branches)))


def _change(plan: ExitPlan, other: OtherArrangement) -> str:
    value_us = _value_us(plan, other.latencies)
    change = value_us / plan.value_us - 1 if plan.value_us else 0.0
    return f"{milliseconds(value_us)} ({change:+.1%})"


def _value_us(plan: ExitPlan, latencies: Latencies) -> float:
    return float(getattr(latencies, f"{plan.objective}_us"))
