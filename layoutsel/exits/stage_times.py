"""Times of an exit network's stages, from times of requests that differ in the stages they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.optimize import nnls

from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.simulate import BRANCH, TRUNK

_TRUST = 1e-3
"""Weight of the cost model's proportions between stages against the measured times."""
Stages: TypeAlias = tuple[tuple[float, ...], ...]
"""Times of the sub-graphs of stages, microseconds."""


class AskedExit(NamedTuple):
    """A request of which one exit alone is sure."""

    arrangement: Arrangement
    """Workers."""
    exit: int
    """The exit that answers."""


def stage_times(
    costs: ExitCosts, worker: str, left_us: Mapping[AskedExit, float]
) -> tuple[Stages, Stages]:
    """Divide times of requests to one worker, without the request itself, among its stages.

    They are the least-squares solution. Where the requests do not tell stages apart, it keeps the
    proportions of `costs`, as it does among the sub-graphs of a stage.

    Parameters
    ----------
    costs
        Costs by the cost model.
    worker
        Worker of all stages.
    left_us
        Measured times of requests, microseconds.

    Returns
    -------
    tuple
        Times of the trunk's segments and of the branches.
    """
    stages = *costs.trunk_us[worker], *costs.branch_us[worker]
    predicted_us = np.array([sum(stage) for stage in stages])
    rows = np.array([_runs(one, costs) for one in left_us]) * predicted_us
    times_us = np.array(list(left_us.values()))
    scale = times_us.sum() / max(rows.sum(), 1e-9)
    prior = np.diag(_TRUST * predicted_us)
    factors, _ = nnls(
        np.concatenate([rows, prior]), np.concatenate([times_us, scale * prior.sum(axis=0)])
    )
    scaled = tuple(
        tuple(float(factor) * us for us in stage)
        for factor, stage in zip(factors, stages, strict=True)
    )
    count = len(costs.needs) + 1
    return scaled[:count], scaled[count:]


def requests_to(worker: str, costs: ExitCosts) -> Iterator[AskedExit]:
    """Yield requests to one worker that differ in their stages: few exits on, and all of them."""
    last = len(costs.needs)
    seen = set()
    for exits in ((), *((e,) for e in range(last)), range(last)):
        arrangement = _with(worker, costs, exits)
        for exit_ in (*exits, last):
            one = AskedExit(arrangement, exit_)
            stages = _runs(one, costs)
            if stages not in seen:
                seen.add(stages)
                yield one


def stage_costs_us(costs: ExitCosts, worker: str) -> dict[str, float]:
    """Time of each stage on a worker by its name, microseconds."""
    parts = {TRUNK: costs.trunk_us[worker], BRANCH: costs.branch_us[worker]}
    return {f"{kind}{n}": sum(us) for kind, part in parts.items() for n, us in enumerate(part)}


def _with(worker: str, costs: ExitCosts, exits: Sequence[int]) -> Arrangement:
    """Arrangement on one worker with some exits on, and those that they need."""
    on = set(exits)
    for exit_ in reversed(range(len(costs.needs))):
        if exit_ in on:
            on |= {*costs.needs[exit_]}
    branches = (worker if exit_ in on else None for exit_ in range(len(costs.needs)))
    return Arrangement(trunk=worker, branches=tuple(branches))


def _runs(asked: AskedExit, costs: ExitCosts) -> tuple[bool, ...]:
    """Stages that a request to one worker runs: segments of the trunk, then branches."""
    trunk = (index <= asked.exit for index in range(len(costs.needs) + 1))
    branches = (
        index <= asked.exit and worker is not None
        for index, worker in enumerate(asked.arrangement.branches)
    )
    return (*trunk, *branches)


def stages_run(asked: AskedExit, costs: ExitCosts) -> set[str]:
    """Names of the stages that a request to one worker runs."""
    last = len(costs.needs)
    names = [f"{TRUNK}{n}" for n in range(last + 1)] + [f"{BRANCH}{n}" for n in range(last)]
    return {name for name, runs in zip(names, _runs(asked, costs), strict=True) if runs}
