"""Costs from measurements: ask the store, measure what it lacks, and estimate where neither has an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from layoutsel.cost.model import INTERRUPTED, Cost, CostModel, Infeasible, TensorSpec, Workload
from layoutsel.cost.outcome import Failure, FailureKind, Outcome, Timing
from layoutsel.cost.scopes import kernel_of
from layoutsel.cost.store import Store
from layoutsel.cost.worker import Reply, Worker
from tvm_passes.decision import Decision

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A candidate to measure."""

    key: str
    """Structural hash of the sub-graph."""
    decision: Decision
    kernel: str = ""
    """The kernel that computes it; see :func:`layoutsel.cost.scopes.kernel_of`."""
    payload: Any = None
    """What the runner needs to build and run it; picklable where the runner is a worker."""
    label: str = ""
    """For people, such as ``s7 (nn.conv2d)``."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Reported after every measurement."""

    done: int
    total: int
    """Measurements to make, those known before excluded."""
    request: Request
    outcome: Outcome


Runner = Callable[[Request], Outcome]
"""Builds and runs one candidate. Must not raise for a candidate's own failure."""

Key = tuple[str, Decision]

_SURPRISING = 1.5
"""Times the prediction at which a measurement is repeated."""


class MeasuredCost:
    """A cost model that answers from `store`, and from `estimate` where nothing was measured."""

    def __init__(
        self, store: Store, estimate: CostModel, disturbed: dict[Key, Failure] | None = None
    ) -> None:
        """Answer from `store`, else from `estimate`.

        `disturbed` holds failures that are not worth keeping, such as time-outs. They are added to it, and the prices
        of their candidates are marked as :data:`~layoutsel.cost.model.INTERRUPTED` as long as it lives.
        """
        self.store, self.estimate = store, estimate
        self.disturbed = {} if disturbed is None else disturbed

    def subgraph(self, workload: Workload, decision: Decision) -> Cost | Infeasible:
        """Time of one run of the sub-graph, boundaries excluded."""
        known = self.store.cost(workload.key, decision, kernel_of(workload))
        if known is not None:
            return known
        answer = self.estimate.subgraph(workload, decision)
        if (workload.key, decision) in self.disturbed and isinstance(answer, Cost):
            return replace(answer, source=INTERRUPTED)
        return answer

    def transform(self, tensor: TensorSpec, source: str, destination: str) -> Cost:
        """Time of bringing `tensor` from layout `source` into layout `destination`."""
        return self.store.boundary(
            "transform", source, destination, tensor
        ) or self.estimate.transform(tensor, source, destination)

    def crossing(self, tensor: TensorSpec, source: str, destination: str) -> Cost:
        """Time of handing `tensor` from unit `source` to unit `destination`."""
        return self.store.boundary(
            "crossing", source, destination, tensor
        ) or self.estimate.crossing(tensor, source, destination)

    def measure_all(
        self,
        requests: Iterable[Request],
        runner: Runner,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Mapping[Key, Outcome]:
        """Outcomes of all `requests`: from the store, else by `runner`, each key once.

        Every outcome is in the store before the next candidate starts, so an interrupt (Ctrl-C, which is passed on)
        loses at most the one that was running, and the same call resumes.
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
            outcome = runner(request)
            self._keep(request, outcome)
            outcomes[key] = outcome
            if on_progress is not None:
                report = Progress(
                    done=position + 1, total=len(missing), request=request, outcome=outcome
                )
                on_progress(report)
        return outcomes

    def _keep(self, request: Request, outcome: Outcome) -> None:
        """Store `outcome`, or remember a failure that need not happen again for this session only."""
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
    """Make a runner that asks `runner` again where the answer is much slower than `expected`, and keeps the faster.

    What disturbs a measurement as a whole, such as where its buffers happen to lie, is in neither its spread nor the
    reference kernel's time, and only ever slows it.
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

    The worker's function returns ``(us, spread_us, runs)``; whatever else happens is a failure. A crash is believed when
    it happens twice: the first may be due to what ran in the process before.
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
        except Exception as error:  # the function is the caller's: say what it did wrong
            return Failure(
                kind=FailureKind.BUILD,
                reason=f"got {reply.value!r} from {worker.function}; expected "
                f"(us, spread_us, runs): {error}",
            )

    return run
