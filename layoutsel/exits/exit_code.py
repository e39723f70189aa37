"""Code of a multi-exit network for an arrangement: stages on the host, and stages on devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import layoutsel
from layoutsel.exits.arrangement import Arrangement, WorkerKind
from layoutsel.exits.costs import PricedExits
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.simulate import BRANCH
from layoutsel.planning.plan import Plan
from layoutsel.runtime.compiled import CompiledModel
from tvm_passes.decision import SubgraphId

CodeKey: TypeAlias = tuple[int, tuple[tuple[str, str], ...]]
"""Number of threads of the host's stages, and the device worker of each other stage."""


def compiled_for(
    network: ExitNetwork, found: PricedExits, threads: int, **options: Any
) -> CompiledModel:
    """Compile a network by the plan for a number of threads of the host.

    All arrangements without devices can run on it.

    Parameters
    ----------
    network
        The network.
    found
        Its plans and division.
    threads
        Number of threads of the trunk, one of those of the plans.
    **options
        Options of :func:`layoutsel.compile_plan`.
    """
    staged = found.plans[threads].in_stages(found.division.stages())
    return layoutsel.compile_plan(network.scored(), staged, **options)


def code_key(found: PricedExits, arrangement: Arrangement) -> CodeKey:
    """Key of the code that an arrangement runs on; equal keys are equal code."""
    kinds = {kind.name: kind for kind in found.costs.workers}
    placed = {name: kinds[worker] for name, worker in _workers(found, arrangement).items()}
    devices = tuple((name, kind.name) for name, kind in placed.items() if kind.device)
    return _host_threads(arrangement, kinds, found), devices


def _workers(found: PricedExits, arrangement: Arrangement) -> dict[str, str]:
    """Worker of each stage; exits that are off have code for that of the trunk."""
    stages = {}
    for name in found.division.stages():
        number = name.removeprefix(BRANCH)
        own = arrangement.branches[int(number)] if number != name else arrangement.trunk
        stages[name] = own or arrangement.trunk
    return stages


def _host_threads(
    arrangement: Arrangement, kinds: Mapping[str, WorkerKind], found: PricedExits
) -> int:
    """Number of threads of the host's stages: those of the trunk, or of the branches there."""
    used = [kinds[one] for one in (arrangement.trunk, *arrangement.branches) if one is not None]
    counts = [kind.threads for kind in used if not kind.device]
    if not counts:
        return min(found.plans)
    return counts[0] if not used[0].device else max(counts)


def placed_plan(found: PricedExits, key: CodeKey) -> Plan:
    """Plan of a network whose stages are on the host or on devices, in stages.

    Each sub-graph has the decision of the plan for its stage's worker. Its cost is that of this
    plan as well; boundaries between different plans have no price.
    """
    threads, devices = key
    base = found.plans[threads]
    stages = found.division.stages()
    workers = dict(devices)
    homes = {id_: workers.get(name, "") for name, ids in stages.items() for id_ in ids}
    sources: dict[str, Plan] = {
        "": base,
        **{name: found.devices[name] for name in workers.values()},
    }
    planned = {name: {one.id: one for one in plan.subgraphs} for name, plan in sources.items()}
    subgraphs = tuple(planned[homes[one.id]][one.id] for one in base.subgraphs)
    boundaries = tuple(
        boundary
        for name, plan in sources.items()
        for boundary in plan.boundaries
        if all(homes.get(SubgraphId(one)) == name for one in boundary.consumers)
    )
    total_us = sum(one.cost_us for one in subgraphs) + sum(one.cost_us for one in boundaries)
    bound_us = min(total_us, *(plan.bound_us for plan in sources.values()))
    sums = base.values.items()  # stages follow one another, whatever the objective
    return replace(
        base,
        strategy="joint, by stage",
        values={name: replace(one, value=total_us, bound=bound_us) for name, one in sums},
        subgraphs=subgraphs,
        boundaries=boundaries,
        order=(),
        score_cost_us=None,
        gains=None,
        uncertainty=None,
    ).in_stages(stages, workers, workers)


@dataclass(frozen=True, kw_only=True)
class ExitCode:
    """Compiled code of a network by arrangement; equal code is compiled once."""

    network: ExitNetwork
    """The network."""
    found: PricedExits
    """Its plans and division."""
    options: Mapping[str, Any]
    """Options of :func:`layoutsel.compile_plan`."""
    _made: dict[CodeKey, CompiledModel] = field(default_factory=dict)
    """Code by key."""

    def of(self, arrangement: Arrangement) -> CompiledModel:
        """Return the code that an arrangement runs on.

        Raises
        ------
        LayoutselError
            If it cannot be built.
        """
        return self._with_key(code_key(self.found, arrangement))

    def on_host(self, threads: int) -> CompiledModel:
        """Return the code for a number of threads of the host; errors are those of :meth:`of`."""
        return self._with_key((threads, ()))

    def _with_key(self, key: CodeKey) -> CompiledModel:
        if key not in self._made:
            self._made[key] = self._compiled(key)
        return self._made[key]

    def _compiled(self, key: CodeKey) -> CompiledModel:
        threads, devices = key
        if not devices:
            return compiled_for(self.network, self.found, threads, **self.options)
        plan = placed_plan(self.found, key)
        return layoutsel.compile_plan(self.network.scored(), plan, **self.options)
