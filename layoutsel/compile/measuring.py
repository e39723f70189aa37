"""Measuring of a session's candidates: all, or those that could change the plan."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from layoutsel import documents
from layoutsel.building import boundaries
from layoutsel.building.boundaries import measure_boundaries, measure_conversions
from layoutsel.compile.pricing import Pricing, priced_by
from layoutsel.core.choices import check_cost
from layoutsel.core.precision import F32, OWN
from layoutsel.core.workload import INTERRUPTED, Cost, Infeasible
from layoutsel.cost.measured import MeasuredCost, Request, Runner, confirmed, run_in
from layoutsel.cost.model import Question
from layoutsel.cost.scopes import kernel_of
from layoutsel.cost.store import Store
from layoutsel.cost.tensor import Tensor
from layoutsel.device.worker import Worker
from layoutsel.planning.contenders import within
from layoutsel.planning.hybrid import STABLE, Tolerance, refine
from layoutsel.planning.problem import Boundary, Option, PlanningProblem
from layoutsel.planning.solve import solve
from layoutsel.planning.value_of_information import Candidate
from tvm_passes.errors import Decline

if TYPE_CHECKING:
    from layoutsel.compile.offers import Offers
    from layoutsel.compile.session import Session
    from layoutsel.cost.graph import Subgraph
    from tvm_passes.decision import Decision

CANDIDATE_LIMIT_S = 60.0
"""Time limit of building and timing one candidate, seconds; both usually take a few."""

logger = logging.getLogger(__name__)


@contextmanager
def cost_model(
    offers: Offers, cost: str, *, deadline: float = math.inf, best: int | None = None
) -> Iterator[MeasuredCost]:
    """Open the cost model with its store; for ``measured``, first measure what the store lacks.

    No measurement starts after `deadline`, a value of :func:`time.monotonic`. `best` is the number
    of candidates of each sub-graph and precision that are measured, the predicted best first; a
    random one is measured in addition. None measures all.
    """
    check_cost(cost)
    estimate = offers.costs.roofline if cost == "roofline" else offers.costs.learned
    with Store(offers.session.context, offers.session.options.cache) as store:
        model = MeasuredCost(store, estimate, offers.disturbed)
        if cost == "measured" and offers.session.machine is None:
            measure_all(offers, model, deadline, best)
        yield model


def worker_of(session: Session) -> Worker:
    """Create a process that measures candidates; a context manager."""
    threads = str(session.threads)
    return Worker(
        "layoutsel.building.measure:run_request",
        time_limit_s=CANDIDATE_LIMIT_S,
        environment={"OMP_NUM_THREADS": threads, "TVM_NUM_THREADS": threads},
    )


def request_for(offers: Offers, subgraph: Subgraph, decision: Decision) -> Request:
    """Make the request to measure a candidate; the first of identical devices stands for all."""
    decision = offers.measured_as(decision)
    payload = {
        "kind": "subgraph",
        "function": offers.session.functions.document(subgraph.id),
        "decision": str(decision),
        "threads": offers.session.threads,
        "record": offers.records.get((subgraph.structural_hash, decision), ""),
    }
    work = offers.asked(subgraph, decision)
    return Request(
        key=work.key,
        decision=decision,
        kernel=kernel_of(work),
        payload=payload,
        label=f"{subgraph.id} ({subgraph.anchor}) {decision}",
    )


def _candidates(offers: Offers) -> Iterator[Candidate]:
    for subgraph in offers.session.graph.subgraphs:
        for decision in offers.candidates[subgraph.id].decisions:
            yield subgraph.id, decision


def _promising(offers: Offers, best: int) -> Iterator[Candidate]:
    """Yield the `best` candidates of each sub-graph and precision by prediction, and a random one.

    Measurements do not count, so that an interrupted call continues with the same candidates.
    """
    for subgraph in offers.session.graph.subgraphs:
        decisions = offers.candidates[subgraph.id].decisions
        questions = [Question(offers.asked(subgraph, one), one) for one in decisions]
        predicted = offers.costs.learned.subgraphs(questions)
        ranked = sorted(zip(decisions, predicted, strict=True), key=lambda pair: _us(pair[1]))
        for precision in sorted({decision.precision for decision in decisions}):
            mine = [decision for decision, _ in ranked if decision.precision == precision]
            chance, rest = random.Random(subgraph.structural_hash), mine[best:]
            for decision in (*mine[:best], *chance.sample(rest, bool(rest))):
                yield subgraph.id, decision


def _us(price: Cost | Infeasible) -> float:
    return price.us if isinstance(price, Cost) else math.inf


def measure_all(
    offers: Offers, model: MeasuredCost, deadline: float = math.inf, best: int | None = None
) -> None:
    """Measure every candidate and boundary that the store lacks, until `deadline`.

    `best` is that of :func:`cost_model`.
    """
    session = offers.session
    chosen = list(_candidates(offers) if best is None else _promising(offers, best))
    with worker_of(session) as worker:
        measure_candidates(offers, model, chosen, worker, deadline)
        if time.monotonic() >= deadline:
            return
        layouts = sorted({decision.layout for _, decision in chosen if decision.precision in OWN})
        measure_boundaries(
            priced_by(offers, model).tensors,
            layouts,
            session.placed_units,
            model.store,
            worker,
            session.threads,
            session.options.progress,
            alike=session.alike,
        )


def measure_candidates(
    offers: Offers,
    model: MeasuredCost,
    chosen: Sequence[Candidate],
    worker: Worker,
    deadline: float = math.inf,
) -> None:
    """Measure those of the `chosen` candidates that the store lacks in `worker`, until `deadline`.

    Their features and the machine's description, which training needs, are stored as well.
    """
    session = offers.session
    for work in {offers.workloads[id_].key: offers.workloads[id_] for id_, _ in chosen}.values():
        model.store.describe(work)
    described = documents.to_json(offers.costs.profile)
    model.store.describe_machine({**described.pop("machine"), **described})
    requests = [request_for(offers, session.graph.by_id[id_], one) for id_, one in chosen]
    model.measure_all(requests, _runner(offers, worker), session.options.progress, deadline)


def measure_copies(offers: Offers, model: MeasuredCost) -> None:
    """Measure the copies between the memories of the session's units that the store lacks."""
    with worker_of(offers.session) as worker:
        boundaries.measure_copies(
            offers.session.graph.tensors,
            offers.session.placed_units,
            model.store,
            worker,
            offers.session.threads,
            offers.session.options.progress,
            alike=offers.session.alike,
        )


def measure_worthwhile(
    offers: Offers,
    problem: PlanningProblem,
    model: MeasuredCost,
    budget_s: float,
    tolerance: Tolerance = STABLE,
) -> PlanningProblem:
    """Measure the candidates that could change the plan of `problem`, within the budget."""
    deadline = time.monotonic() + budget_s
    keys = {subgraph.id: subgraph.structural_hash for subgraph in offers.session.graph.subgraphs}
    pricing = Pricing(offers, model)
    with worker_of(offers.session) as worker:

        def measure(candidates: Sequence[Candidate]) -> dict[Candidate, Option | None]:
            answers: dict[Candidate, Option | None] = {}
            for id_, decision in candidates:
                if time.monotonic() >= deadline:
                    break
                measure_candidates(offers, model, [(id_, decision)], worker)
                price = pricing.candidate(offers.session.graph.by_id[id_], decision)
                option = problem.by_id[id_].option(decision)
                answers[id_, decision] = (
                    None
                    if isinstance(price, Decline) or price.source == INTERRUPTED
                    else replace(
                        option, cost_us=price.us, spread_us=price.spread_us, source=price.source
                    )
                )
            return answers

        refined = refine(problem, keys, measure, stand_in=offers.measured_as, tolerance=tolerance)
    logger.info(
        "hybrid: measured %d candidates; %s",
        refined.measured,
        "the plan is stable" if refined.stable else "the budget is spent",
    )
    return refined.problem


def measure_unpredicted(
    offers: Offers,
    problem: PlanningProblem,
    model: MeasuredCost,
    budget_s: float,
    tolerance: Tolerance = STABLE,
) -> None:
    """Measure the candidates that could change the best plans with each precision beyond f32.

    For each precision, transforms of the best plan that change how elements are stored, such as
    f32 to bfloat16, are measured as well. `budget_s` limits the total time, seconds.
    """
    deadline = time.monotonic() + budget_s
    others = [precision for precision in offers.session.precision.precisions if precision != F32]
    for position, precision in enumerate(others):
        narrowed = within(problem, (*OWN, precision))
        left_s = max(deadline - time.monotonic(), 0.0) / (len(others) - position)
        refined = measure_worthwhile(offers, narrowed, model, left_s, tolerance)
        _measure_paid(offers, refined, model, deadline)
    if time.monotonic() >= deadline:
        logger.warning(
            "%g s did not suffice to measure all that may be faster than f32: "
            "the rest is left out; a longer --measure-budget takes more of it, "
            "and what was measured is kept",
            budget_s,
        )


def _measure_paid(
    offers: Offers, problem: PlanningProblem, model: MeasuredCost, deadline: float
) -> None:
    """Measure the storage changes that the best plan of `problem` contains."""
    paid = problem.cost(solve(problem).decisions).boundaries
    found = {tensor.name: tensor for tensor in problem.tensors}
    if time.monotonic() >= deadline:
        return
    with worker_of(offers.session) as worker:
        measure_conversions(
            [_only_paid(found[boundary.tensor], boundary) for boundary in paid],
            tuple(offers.session.units),
            model.store,
            worker,
            offers.session.threads,
            offers.session.options.progress,
        )


def _only_paid(tensor: Tensor, boundary: Boundary) -> Tensor:
    """Reduce the prices of `tensor` to that of `boundary`."""
    pair = (boundary.source, boundary.destination)
    return replace(
        tensor,
        transform_us={pair: boundary.cost_us} if boundary.kind == "transform" else {},
    )


def _runner(offers: Offers, worker: Worker) -> Runner:
    """Make a runner that measures in `worker`, and repeats implausible results.

    Only a cost model that knows this machine judges results.
    """
    works = {work.key: work for work in offers.workloads.values()}
    learned = offers.costs.learned

    def expected(request: Request) -> Cost | Infeasible | None:
        if not learned.knows_machine or request.key not in works:
            return None
        price = learned.subgraph(works[request.key], request.decision)
        return price if isinstance(price, Cost) and price.source == "learned" else None

    return confirmed(run_in(worker), expected)
