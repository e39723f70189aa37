"""Exit plans: which exits of a network run, on which workers, and the latencies to expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from layoutsel import documents
from layoutsel.documents.saved import Fault, SavedDocument, below
from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.arrangement_checks import arrangement_faults, cost_faults
from layoutsel.exits.latencies import OBJECTIVES, Latencies
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.policy import Policy
from layoutsel.planning.check_fits import check_model
from layoutsel.planning.plan import Plan

SCHEMA_VERSION = 1
"""Version of exit plan files."""
RENEW = "Plan again with 'layoutsel exits plan MODEL -o FILE'"
"""Advice on an exit plan file whose version is no longer supported."""


@dataclass(frozen=True, kw_only=True)
class OtherArrangement:
    """An arrangement that was not chosen, or the chosen one as a baseline."""

    name: str
    """Text such as ``exits off``, ``all sequential`` or ``exit1 on cpu-1``."""
    arrangement: Arrangement
    """Best arrangement of this description that was found."""
    latencies: Latencies
    """Its predicted latencies."""


@dataclass(frozen=True, kw_only=True)
class ExitRace:
    """Measurement of the planned arrangement and its simpler rivals."""

    times_us: Mapping[str, float]
    """Measured objective by name of an arrangement, microseconds; the first one was planned."""
    kept: str
    """Name of the fastest arrangement, which the artifact runs."""
    p95_us: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Objective that 5 % of the rounds exceeded, by the same names, microseconds."""


@dataclass(frozen=True, kw_only=True)
class ExitPlan(SavedDocument):
    """Arrangement of a network with E exits, and the prediction that it was chosen for."""

    VERSIONS = (SCHEMA_VERSION,)
    ADVICE = RENEW

    schema_version: int
    """Version of the file format."""
    model_name: str
    """Name of the model."""
    model_hash: str
    """Hash of the model."""
    exits: tuple[str, ...]
    """Names of the exits, the final one last."""
    policy: Policy
    """Thresholds of the exits."""
    answer: str
    """Entry of :data:`layoutsel.exits.answers.ANSWERS`: ``first`` or ``ordered``."""
    objective: str
    """Entry of :data:`layoutsel.exits.latencies.OBJECTIVES`."""
    arrangement: Arrangement
    """Workers of the trunk and the branches."""
    latencies: Latencies
    """Predicted latencies of the arrangement."""
    bound_us: float
    """Lower bound on the objective over all arrangements, microseconds."""
    patterns: tuple[SurePattern, ...]
    """Observed patterns of sure exits; empty if nothing was observed."""
    costs: ExitCosts
    """Times that the prediction is made of; `needs` has the exits that patience reads as well."""
    baselines: tuple[OtherArrangement, ...]
    """The trunk alone on each worker; all exits in sequence; all exits parallel to the trunk."""
    forced: tuple[OtherArrangement, ...]
    """Best arrangements with a stage on each worker that it is not on, or with an exit off."""
    plans: Mapping[str, Plan] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Plan of the whole network by number of threads, or worker on a device; empty in artifacts."""
    race: ExitRace | None = field(default=None, metadata=documents.OPTIONAL)
    """Measurement that the arrangement was chosen by; None before compilation, or without one."""

    @property
    def value_us(self) -> float:
        """Predicted objective, microseconds."""
        return float(getattr(self.latencies, f"{self.objective}_us"))

    @property
    def gap(self) -> float:
        """Relative distance of the objective from its lower bound; 0 if the plan is the best."""
        return (self.value_us - self.bound_us) / self.value_us if self.value_us else 0.0

    def check_model(self, model_hash: str) -> None:
        """Reject the plan of another model; raises :class:`PlanMismatch`."""
        check_model(self, model_hash, what="the exit plan", advice=RENEW)

    def faults(self) -> Iterator[Fault]:
        """Yield the inconsistencies of the plan."""
        return _faults(self)


def _faults(plan: ExitPlan) -> Iterator[Fault]:
    """Yield the inconsistencies of a plan."""
    count = len(plan.exits)
    if count < 2 or len(set(plan.exits)) < count:
        yield "$.exits", f"the names {list(plan.exits)}", "two or more, each once"
    for path, known, got in (
        ("$.answer", ANSWERS, plan.answer),
        ("$.objective", OBJECTIVES, plan.objective),
    ):
        if got not in known:
            yield path, repr(got), f"one of {', '.join(known)}"
    if len(plan.costs.needs) != count - 1:
        yield "$.costs.needs", f"{len(plan.costs.needs)} branches", str(count - 1)
    if len(plan.policy.thresholds) != count:
        got = f"{len(plan.policy.thresholds)} thresholds"
        yield "$.policy.thresholds", got, f"{count}, one for each exit"
    yield from below("$.costs", cost_faults(plan.costs))
    yield from below("$.arrangement", arrangement_faults(plan.arrangement, plan.costs))
    for name, others in (("baselines", plan.baselines), ("forced", plan.forced)):
        for number, other in enumerate(others):
            path = f"$.{name}[{number}].arrangement"
            yield from below(path, arrangement_faults(other.arrangement, plan.costs))
    yield from _detail_faults(plan)
    if plan.bound_us > plan.value_us:
        got = f"{plan.bound_us} above the value {plan.value_us} of the objective"
        yield "$.bound_us", got, "a lower bound on it"


def _detail_faults(plan: ExitPlan) -> Iterator[Fault]:
    """Yield the inconsistencies of patterns, plans of the network, and race."""
    early = len(plan.exits) - 1
    for number, pattern in enumerate(plan.patterns):
        path = f"$.patterns[{number}]"
        if list(pattern.exits) != sorted({*pattern.exits} & {*range(early)}):
            yield f"{path}.exits", str(list(pattern.exits)), f"ascending numbers below {early}"
        if pattern.samples < 1:
            yield f"{path}.samples", str(pattern.samples), "at least 1"
    devices = {kind.name for kind in plan.costs.workers if kind.device}
    for name, one in plan.plans.items():
        if name not in devices and name != str(one.threads):
            yield f"$.plans.{name}", f"a plan for {one.threads} threads", f"one for {name}"
    if plan.race is not None:
        yield from below("$.race", _race_faults(plan.race))


def _race_faults(race: ExitRace) -> Iterator[Fault]:
    """Yield the inconsistencies of a race."""
    names = ", ".join(race.times_us)
    if race.kept not in race.times_us:
        yield "$.kept", repr(race.kept), f"one of {names}"
    if race.p95_us and race.p95_us.keys() != race.times_us.keys():
        yield "$.p95_us", f"times of {', '.join(race.p95_us)}", f"of {names}"
