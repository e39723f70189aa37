"""Gantt charts of requests to multi-exit networks: one that an early exit answers, and another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.latencies import LatencyModel
from layoutsel.exits.samples import Samples
from layoutsel.exits.simulate import BRANCH, TRUNK
from layoutsel.exits.stage_runs import StageRun
from layoutsel.report.gantt import GanttBar, GanttMark, numbered_colour, write_chart

_TRUNK = ("#c8c8c8", "#b0b0b0")
"""Colours of the trunk's segments in turn; each exit has its own colour."""
_REQUEST = "#f2f2f2"
"""Colour of the time from a request to its answer."""
_TRACED = 100
"""Maximum number of measured requests, of which one is drawn for each kind."""


class ShownRequest(NamedTuple):
    """Course of a request, simulated or measured."""

    name: str
    """Name in the chart."""
    exit: int
    """Number of the exit that answers."""
    answer_us: float
    """Time of the answer, microseconds."""
    runs: tuple[StageRun, ...]
    """Stages that began."""


def write_exit_gantt(
    requests: Iterable[ShownRequest], exits: Sequence[str], file: Path, *, title: str
) -> None:
    """Draw requests on one axis of time, with the moment of each answer.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    bars: list[GanttBar] = []
    rows: list[str] = []
    marks: list[GanttMark] = []
    for request in requests:
        workers = dict.fromkeys(run.worker for run in request.runs)
        own = (request.name, *(f"{request.name}, {worker}" for worker in workers))
        rows += own
        bars += _bars(exits, request)
        text = f"{exits[request.exit]} answers at {request.answer_us / 1e3:.3f} ms"
        marks.append(GanttMark(at_us=request.answer_us, text=text, rows=own))
    write_chart(bars, rows, file, title=title, marks=marks)


def predicted_requests(plan: ExitPlan) -> Iterator[ShownRequest]:
    """Yield the most frequent request with an early answer, if any, and one without."""
    model = LatencyModel(plan.costs, plan.policy, plan.patterns, answer=plan.answer)
    exits, times_us = model.rule(model.known_us(plan.arrangement), model.sure)
    *observed, never = zip(map(int, exits), map(float, times_us), model.samples, strict=True)
    early = [one for one in observed if one[0] < len(plan.exits) - 1]
    chosen = {"early": max(early, key=lambda one: one[2])} if early else {}
    for name, (exit_, us, _) in {**chosen, "late": never}.items():
        request = model.simulator.request(plan.arrangement, exit_, us)
        yield ShownRequest(name, request.exit, request.answer_us, request.runs)


def measured_requests(model: ExitModel, samples: Samples) -> Iterator[ShownRequest]:
    """Yield the request of median time with an early answer, and that without, where there are any.

    Parameters
    ----------
    model
        The network.
    samples
        Inputs; some of the first ones are measured.
    """
    by_name: dict[str, list[ShownRequest]] = {"early": [], "late": []}
    for inputs in samples.inputs[:_TRACED]:
        answer, runs = model.trace(*inputs)
        name = "late" if answer.exit == model.exits[-1] else "early"
        exit_ = model.exits.index(answer.exit)
        by_name[name].append(ShownRequest(name, exit_, answer.us, runs))
    for found in by_name.values():
        if found:
            yield sorted(found, key=lambda one: one.answer_us)[len(found) // 2]


def _bars(exits: Sequence[str], request: ShownRequest) -> Iterator[GanttBar]:
    yield GanttBar(
        row=request.name,
        start_us=0.0,
        end_us=request.answer_us,
        colour=_REQUEST,
        text=f"request: until {request.answer_us:,.0f} µs",
    )
    for run in request.runs:
        is_trunk = run.name.startswith(TRUNK)
        number = int(run.name.removeprefix(TRUNK if is_trunk else BRANCH))
        stage = run.name if is_trunk else exits[number]
        label = stage if run.complete else f"{stage}, stopped"
        yield GanttBar(
            row=f"{request.name}, {run.worker}",
            start_us=run.start_us,
            end_us=run.end_us,
            colour=_TRUNK[number % 2] if is_trunk else numbered_colour(number),
            text=f"{label}: {run.start_us:,.0f} to {run.end_us:,.0f} µs",
            label=label,
        )
