"""Gantt charts of exit plans: a request that an early exit answers, and one that none does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.latencies import LatencyModel
from layoutsel.exits.simulate import BRANCH, TRUNK, SimulatedRequest
from layoutsel.report.gantt import GanttBar, GanttMark, numbered_colour, write_chart

_TRUNK = ("#c8c8c8", "#b0b0b0")
"""Colours of the trunk's segments in turn; each exit has its own colour."""


def write_exit_gantt(plan: ExitPlan, file: Path) -> None:
    """Draw the requests of :func:`shown_requests` on one axis of time.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    bars: list[GanttBar] = []
    rows: list[str] = []
    marks: list[GanttMark] = []
    for name, request in shown_requests(plan):
        workers = dict.fromkeys(run.worker for run in request.runs)
        own = (name, *(f"{name}, {worker}" for worker in workers))
        rows += own
        bars += _bars(plan, name, request)
        text = f"{plan.exits[request.exit]} answers at {request.answer_us / 1e3:.3f} ms"
        marks.append(GanttMark(at_us=request.answer_us, text=text, rows=own))
    title = f"{plan.model_name or 'network'}: requests to the exit plan"
    write_chart(bars, rows, file, title=title, marks=marks)


def shown_requests(plan: ExitPlan) -> Iterator[tuple[str, SimulatedRequest]]:
    """Yield the most frequent request with an early answer, if any, and one without."""
    model = LatencyModel(plan.costs, plan.policy, plan.patterns, answer=plan.answer)
    exits, times_us = model.rule(model.known_us(plan.arrangement), model.sure)
    *observed, never = zip(map(int, exits), map(float, times_us), model.samples, strict=True)
    early = [one for one in observed if one[0] < len(plan.exits) - 1]
    if early:
        exit_, us, _ = max(early, key=lambda one: one[2])
        yield "early", model.simulator.request(plan.arrangement, exit_, us)
    yield "late", model.simulator.request(plan.arrangement, *never[:2])


def _bars(plan: ExitPlan, name: str, request: SimulatedRequest) -> Iterator[GanttBar]:
    for run in request.runs:
        is_trunk = run.name.startswith(TRUNK)
        number = int(run.name.removeprefix(TRUNK if is_trunk else BRANCH))
        stage = run.name if is_trunk else plan.exits[number]
        label = stage if run.complete else f"{stage}, stopped"
        yield GanttBar(
            row=f"{name}, {run.worker}",
            start_us=run.start_us,
            end_us=run.end_us,
            colour=_TRUNK[number % 2] if is_trunk else numbered_colour(number),
            text=f"{label}: {run.start_us:,.0f} to {run.end_us:,.0f} µs",
            label=label,
        )
