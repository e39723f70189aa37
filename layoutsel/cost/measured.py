"""Costs from measurements: a store of results, the measuring, and estimates for the rest."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layoutsel.core.workload import INTERRUPTED, Cost, Infeasible
from layoutsel.cost.conditions import Conditions
from layoutsel.cost.model import BoundaryPart, CostModel, Question, under
from layoutsel.cost.scopes import kernel_of
from layoutsel.cost.store import Store
from layoutsel.device.outcome import Failure, FailureKind, Outcome, Timing
from layoutsel.device.worker import Reply, Worker
from tvm_passes.decision import Decision

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A candidate to measure."""

    key: str
    """Structural hash of the sub-graph."""
    decision: Decision
    """Decision to measure."""
    kernel: str = ""
    """Kernel that computes the sub-graph; see :func:`layoutsel.cost.scopes.kernel_of`."""
    payload: Any = None
    """Input of the runner, to build and run the candidate; picklable if the runner is a worker."""
    label: str = ""
    """Readable name, such as ``conv2d_3f2a9c (nn.conv2d)``."""


@dataclass(frozen=True, kw_only=True)
class PricingProgress:
    """Progress report after a measurement."""

    done: int
    """Number of measurements made so far."""
    total: int
    """Number of measurements to make; stored results do not count."""
    request: Request
    """Candidate that was just measured."""
    outcome: Outcome
    """Result of its measurement."""


Runner = Callable[[Request], Outcome]
"""Function that builds and runs one candidate; it must not raise for a candidate's own failure."""

Key = tuple[str, Decision]
"""Structural hash of a sub-graph, and a decision."""

_SURPRISING = 1.5
"""Ratio of measured to predicted time from which a measurement is repeated."""


class MeasuredCost(CostModel):
    """A cost model that answers from `store`, and from `estimate` if nothing was measured."""

    def __init__(
        self, store: Store, estimate: CostModel, disturbed: dict[Key, Failure] | None = None
    ) -> None:
        """Answer from `store`, else from `estimate`.

        Parameters
        ----------
        store
            Measurements of the present machine and versions.
        estimate
            Cost model for everything else.
        disturbed
            Failures that are not stored, such as time-outs; new ones are added to it. Prices of
            these candidates are marked as :data:`~layoutsel.core.workload.INTERRUPTED`.
        """
        self.store, self.estimate = store, estimate
        self.disturbed = {} if disturbed is None else disturbed

    @property
    def conditions(self) -> Conditions:
        """State of the machine during the measurements."""
        return Conditions(threads=self.store.context.threads)

    def subgraphs(self, questions: Sequence[Question]) -> list[Cost | Infeasible]:
        """Return the cost of one run of each sub-graph: measured, else estimated in one call."""
        known = [self._measured(question) for question in questions]
        missing = [q for q, answer in zip(questions, known, strict=True) if answer is None]
        estimates = map(self._marked, missing, self.estimate.subgraphs(missing))
        measured = iter(self._under(known, questions))
        return [
            next(estimates)
            if answer is None
            else next(measured)
            if isinstance(answer, Cost)
            else answer
            for answer in known
        ]

    def _under(
        self, known: Sequence[Cost | Infeasible | None], asked: Sequence[Question | BoundaryPart]
    ) -> list[Cost]:
        """Apply the conditions of the questions to the costs among the answers, in order."""
        pairs = [(a, q) for a, q in zip(known, asked, strict=True) if isinstance(a, Cost)]
        return under([cost for cost, _ in pairs], [one for _, one in pairs], self.conditions)

    def _measured(self, question: Question) -> Cost | Infeasible | None:
        work, decision = question.workload, question.decision
        found = self.store.cost(work.key, decision, kernel_of(work))
        if not isinstance(found, Cost):
            return found
        return work.cost(found.time_us, decision)

    def _marked(self, question: Question, answer: Cost | Infeasible) -> Cost | Infeasible:
        """Mark an estimate if the measurement of its candidate was interrupted."""
        key = question.workload.key, question.decision
        if key in self.disturbed and isinstance(answer, Cost):
            return answer.with_source(INTERRUPTED)
        return answer

    def steps(self, steps: Sequence[BoundaryPart]) -> list[Cost]:
        """Return the cost of each step of a boundary: measured, else estimated in one call."""
        known = [self._measured_step(step) for step in steps]
        missing = [step for step, answer in zip(steps, known, strict=True) if answer is None]
        estimates, measured = iter(self.estimate.steps(missing)), iter(self._under(known, steps))
        return [next(estimates if answer is None else measured) for answer in known]

    def _measured_step(self, step: BoundaryPart) -> Cost | None:
        found = self.store.boundary(step.kind, step.source, step.destination, step.tensor)
        return None if found is None else step.tensor.cost(found.time_us)

    def measure_all(
        self,
        requests: Iterable[Request],
        runner: Runner,
        on_progress: Callable[[PricingProgress], None] | None = None,
        deadline: float = math.inf,
    ) -> Mapping[Key, Outcome]:
        """Return the outcome of each request, from the store or else from `runner`, once per key.

        Every outcome is stored before the next candidate starts. An interrupt (Ctrl-C, which is
        passed on) loses at most the running measurement, and the same call resumes.

        Parameters
        ----------
        requests
            Candidates to measure; later requests with an earlier key are ignored.
        runner
            Function that measures one candidate.
        on_progress
            Called after every measurement.
        deadline
            Value of :func:`time.monotonic` from which no measurement starts; requests without an
            outcome are then left out of the result.
        """
        outcomes: dict[Key, Outcome] = {}
        missing: dict[Key, Request] = {}
        for request in requests:
            key = (request.key, request.decision)
            if key in outcomes or key in missing:
                continue
            known = self.store.get(*key, request.kernel) or self.disturbed.get(key)
            if known is None:
                missing[key] = request
            else:
                outcomes[key] = known
        for position, (key, request) in enumerate(missing.items()):
            if time.monotonic() >= deadline:
                break
            outcome = runner(request)
            self._keep(request, outcome)
            outcomes[key] = outcome
            if on_progress is not None:
                report = PricingProgress(
                    done=position + 1, total=len(missing), request=request, outcome=outcome
                )
                on_progress(report)
        return outcomes

    def _keep(self, request: Request, outcome: Outcome) -> None:
        """Store `outcome`; keep a failure that may not happen again for this session only."""
        if isinstance(outcome, Timing) or outcome.is_reproducible:
            self.store.put(request.key, request.decision, outcome, request.kernel)
            return
        self.disturbed[request.key, request.decision] = outcome
        _LOG.warning(
            "%s was not measured (%s: %s): left out for now, and tried again by the next session",
            request.label or f"{request.key} {request.decision}",
            outcome.kind.value,
            outcome.reason,
        )


def confirmed(runner: Runner, expected: Callable[[Request], Cost | Infeasible | None]) -> Runner:
    """Make a runner that repeats surprisingly slow measurements and keeps the faster result.

    A measurement is surprising if it is much slower than `expected`. Some disturbances, such as
    unlucky addresses of buffers, slow every run of one measurement. Neither its spread nor the time
    of the reference kernel shows them.
    """

    def run(request: Request) -> Outcome:
        first, price = runner(request), expected(request)
        if not isinstance(first, Timing) or not isinstance(price, Cost):
            return first
        if first.us < _SURPRISING * price.us:
            return first
        again = runner(request)
        return again if isinstance(again, Timing) and again.us < first.us else first

    return run


def run_in(worker: Worker) -> Runner:
    """Make a runner that sends each request's payload to `worker`.

    The worker's function returns ``(us, spread_us, runs)``; anything else is a failure. A crash
    counts only if it happens twice: the first may be due to earlier work of the process.
    """

    def run(request: Request) -> Outcome:
        reply = worker.call(request.payload)
        if isinstance(reply, Failure) and reply.kind is FailureKind.CRASH:
            reply = worker.call(request.payload)
        if not isinstance(reply, Reply):
            return reply
        try:
            us, spread_us, runs = reply.value
            return Timing(us=float(us), spread_us=float(spread_us), runs=int(runs))
        except Exception as error:  # the caller's function may return anything
            return Failure(
                kind=FailureKind.BUILD,
                reason=f"got {reply.value!r} from {worker.function}; expected "
                f"(us, spread_us, runs): {error}",
            )

    return run
