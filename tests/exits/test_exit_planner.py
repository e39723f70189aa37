"""Plans of exits against all arrangements, one by one."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from exit_problems import arrangements, exit_costs, pattern_sets, workers
from exit_replay import Replay
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel import documents
from layoutsel.documents import DocumentError
from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.arrangement_bounds import ArrangementBounds
from layoutsel.exits.arrangement_checks import arrangement_faults
from layoutsel.exits.exit_pins import all_options
from layoutsel.exits.exit_plan import ExitPlan, ExitRace
from layoutsel.exits.latencies import OBJECTIVES, LatencyModel
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem, plan_exits, with_patience
from layoutsel.exits.policy import Policy
from layoutsel.planning.check_fits import PlanMismatch
from layoutsel.planning.pins import UnsatisfiedPin
from tvm_passes.errors import LayoutselError


@st.composite
def problems(draw, **limits):
    costs = draw(exit_costs(**limits))
    last = len(costs.needs)
    thresholds = [draw(st.sampled_from([0.5, 0.5, 0.5, None])) for _ in range(last)]
    return ExitProblem(
        exits=tuple(f"e{number}" for number in range(last + 1)),
        costs=costs,
        policy=Policy(score="max_prob", thresholds=(*thresholds, None)),
        patterns=draw(pattern_sets(last + 1)),
        answer=draw(st.sampled_from(list(ANSWERS))),
        objective=draw(st.sampled_from(list(OBJECTIVES))),
    )


def every(costs):
    names = [kind.name for kind in costs.workers]
    for trunk in names:
        for branches in itertools.product([None, *names], repeat=len(costs.needs)):
            one = Arrangement(trunk=trunk, branches=branches)
            if not list(arrangement_faults(one, costs)):
                yield one


def useful(problem):
    """Arrangements without exits that are never sure and that no other one needs.

    On the trunk's worker such an exit may make the trunk wait, and another worker quicker. On a worker
    that is late, it sends requests into a sequence that may be quicker.
    """
    costs, may_answer = problem.costs, [one is not None for one in problem.policy.thresholds]
    options = all_options(costs, may_answer)
    return [one for one in every(costs) if options.hold(one)]


def replayed(problem, arrangement):
    """Value of the objective, by the second simulator and sorted samples."""
    silent = {n for n, one in enumerate(problem.policy.thresholds[:-1]) if one is None}
    options = {"ordered": problem.answer == "ordered", "silent": silent}
    ways, times, outcomes = ways_of(problem.costs, arrangement), [], []
    if problem.objective == "worst":
        return max(
            float(Replay(problem.costs, way, set(), **options).run().answer[1]) for way, _ in ways
        )
    for way, part in ways:
        for one in problem.patterns:
            us = float(Replay(problem.costs, way, set(one.exits), **options).run().answer[1])
            times.append((us, part * one.samples))
            outcomes += [
                (later_us, part * one.samples * chance)
                for later_us, chance in waited(problem.costs, way, us)
            ]
    if problem.objective == "mean":
        values, weights = zip(*times, strict=True)
        return np.average(values, weights=weights) * problem.costs.mean_over_median
    share = float(problem.objective[1:]) / 100
    reached, total = 0.0, sum(chance for _, chance in outcomes)
    for us, chance in sorted(outcomes):
        reached += chance
        if reached >= share * total * (1 - 1e-12):
            return us


def ways_of(costs, arrangement):
    """Where requests run, and the share of each: in sequence while the branches' worker is late."""
    others = {one for one in arrangement.branches if one not in (None, arrangement.trunk)}
    late = max((costs.late.get(one, 0.0) for one in others), default=0)
    if not late:
        return [(arrangement, 1.0)]
    branches = tuple(one and arrangement.trunk for one in arrangement.branches)
    return [
        (arrangement, 1 - late),
        (Arrangement(trunk=arrangement.trunk, branches=branches), late),
    ]


def waited(costs, arrangement, us):
    """Times of a request with and without one more wait, and their chances."""
    share = costs.waiting.get(arrangement.trunk, 0.0)
    on_stages_us = us - costs.call_us * arrangement.is_beside
    whole, more = divmod(share * on_stages_us, costs.wait_us)
    own_us = us - share * on_stages_us
    chance = more / costs.wait_us
    return (
        (own_us + whole * costs.wait_us, 1 - chance),
        (own_us + (whole + 1) * costs.wait_us, chance),
    )


@settings(max_examples=60, deadline=None)
@given(problem=problems(exits=(2, 3), kinds=(1, 3)))
def test_plan_is_the_best_of_all_arrangements(problem):
    plan = plan_exits(problem)
    values = {one: replayed(problem, one) for one in useful(problem)}
    assert plan.value_us == pytest.approx(min(values.values()))
    assert plan.value_us == pytest.approx(values[plan.arrangement])
    assert plan.gap == 0
    for other in (*plan.baselines, *plan.forced):
        value = getattr(other.latencies, f"{problem.objective}_us")
        assert value == pytest.approx(values[other.arrangement])
        assert value >= plan.bound_us * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(problem=problems(exits=(2, 3)))
def test_forced_stages_are_the_best_of_their_kind(problem):
    plan = plan_exits(problem)
    model = LatencyModel(problem.costs, problem.policy, problem.patterns, answer=problem.answer)
    for other in plan.forced:
        stage, _, worker = other.name.replace("off", "on").partition(" on")
        own = worker.strip() or None
        place = problem.exits.index(stage) if stage != "trunk" else None
        alike = [
            model.value_us(one, problem.objective)
            for one in useful(problem)
            if own == (one.trunk if place is None else one.branches[place])
        ]
        assert getattr(other.latencies, f"{problem.objective}_us") == pytest.approx(min(alike))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_bounds_are_below_all_arrangements_that_begin_alike(data):
    problem = data.draw(problems(exits=(3, 6), kinds=(2, 4)))
    arrangement = data.draw(arrangements(problem.costs))
    model = LatencyModel(problem.costs, problem.policy, problem.patterns, answer=problem.answer)
    bounds = ArrangementBounds(model, problem.answer)
    options = [(None, *problem.costs.branch_us)] * len(problem.costs.needs)
    value_us = model.value_us(arrangement, problem.objective)
    least_us = [
        bounds.value_us(arrangement.trunk, arrangement.branches[:count], options, problem.objective)
        for count in range(len(options) + 1)
    ]
    assert max(least_us) <= value_us * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), factor=st.sampled_from([1.0, 1.5, 3.0]), data=st.data())
def test_slower_trunks_and_branches_never_make_a_better_plan(problem, factor, data):
    """True where branches keep their order: a queue in the order of readiness has anomalies."""
    free = {"slowdown": {}, "handover_us": {}, "needs": tuple(() for _ in problem.costs.needs)}
    alone = replace(problem.costs, **free)
    name = data.draw(st.sampled_from([kind.name for kind in alone.workers]))

    def slower(times):
        return {
            worker: tuple(tuple(us * factor for us in stage) for stage in stages)
            if worker == name
            else stages
            for worker, stages in times.items()
        }

    slow = replace(alone, trunk_us=slower(alone.trunk_us), branch_us=slower(alone.branch_us))
    before, after = (plan_exits(replace(problem, costs=costs)) for costs in (alone, slow))
    assert after.value_us >= before.value_us * (1 - 1e-9)


def large(exits, kinds, seed):
    chance = random.Random(seed)
    names = [kind.name for kind in workers(kinds)]
    pairs = [(a, b) for a in names for b in names if a != b]

    def stages(count, scale):
        return tuple(tuple(chance.uniform(50, 300) * scale for _ in range(8)) for _ in range(count))

    costs = ExitCosts(
        workers=workers(kinds),
        cores=kinds,
        trunk_us={name: stages(exits, chance.uniform(0.6, 1.5)) for name in names},
        branch_us={name: stages(exits - 1, chance.uniform(0.2, 0.6)) for name in names},
        needs=tuple(() for _ in range(exits - 1)),
        start_us=5.0,
        handover_us={f"{a}>{b}": (20.0,) * (exits - 1) for a, b in pairs},
        slowdown={f"{a}|{b}": chance.uniform(1, 1.3) for a, b in pairs},
    )
    patterns = tuple(
        SurePattern(exits=tuple(range(first, exits - 1)), samples=100) for first in range(exits)
    )
    return ExitProblem(
        exits=tuple(f"e{number}" for number in range(exits)),
        costs=costs,
        policy=Policy(score="max_prob", thresholds=(*[0.5] * (exits - 1), None)),
        patterns=patterns,
    )


def test_six_exits_on_four_kinds_of_workers_are_planned_exactly():
    assert plan_exits(large(6, 4, 0), time_limit_s=60).gap == 0


def test_the_time_limit_leaves_a_gap_and_a_plan_no_worse_than_the_trunk_alone():
    problem = large(12, 4, 1)
    plan = plan_exits(problem, time_limit_s=0.2)
    assert 0 < plan.gap < 1
    off = [one.latencies.mean_us for one in plan.baselines if one.name.startswith("exits off")]
    assert len(off) == 4
    assert plan.value_us <= min(off)


@pytest.mark.parametrize("patterns", [(), (SurePattern(exits=(), samples=9),)])
def test_exits_that_are_never_sure_are_off(patterns):
    plan = plan_exits(replace(large(4, 2, 0), patterns=patterns))
    assert plan.arrangement.branches == (None, None, None)
    problem = large(4, 2, 0)
    never = Policy(score="max_prob", thresholds=(None,) * 4)
    plan = plan_exits(replace(problem, policy=never))
    assert plan.arrangement.branches == (None, None, None)
    assert [one.name for one in plan.forced] in (["trunk on w0"], ["trunk on w1"])


def test_branches_that_others_need_run_without_an_answer():
    problem = large(3, 2, 0)
    costs = replace(
        problem.costs,
        needs=((), (0,)),
        trunk_us={name: ((10.0,), (10.0,), (1000.0,)) for name in ("w0", "w1")},
        branch_us={name: ((5.0,), (5.0,)) for name in ("w0", "w1")},
    )
    policy = Policy(score="max_prob", thresholds=(None, 0.5, None))
    plan = plan_exits(replace(problem, costs=costs, policy=policy))
    assert None not in plan.arrangement.branches


def test_patience_needs_the_exits_that_it_counts():
    costs = large(4, 2, 0).costs
    policy = Policy(score="patience", thresholds=(0.5, None, 0.5, None), patience=2)
    assert with_patience(costs, policy).needs == ((), (), (0,))
    assert with_patience(costs, replace(policy, patience=None)).needs == ((), (), ())


def test_pins_are_kept():
    problem = large(4, 3, 0)
    plan = plan_exits(problem, pins=["trunk=w2", "e0=off", "e1=u1", "e2=w2"])
    assert plan.arrangement == Arrangement(trunk="w2", branches=(None, "w1", "w2"))
    assert plan.gap == 0


@pytest.mark.parametrize(
    ("pin", "says"),
    [
        ("e9=w0", "one of trunk, e0, e1, e2, then '='"),
        ("e3=off", "one of trunk, e0, e1, e2, then '='"),
        ("e1", "one of trunk, e0, e1, e2, then '='"),
        ("e1=gpu", "expected e1 on one of off, w0, w1"),
        ("trunk=off", "expected trunk on one of w0, w1"),
    ],
)
def test_pins_that_cannot_be_kept(pin, says):
    with pytest.raises(UnsatisfiedPin, match=says):
        plan_exits(large(4, 2, 0), pins=[pin])


def test_pins_to_more_cores_than_there_are():
    problem = large(3, 2, 0)
    problem = replace(problem, costs=replace(problem.costs, cores=1))
    with pytest.raises(UnsatisfiedPin, match="no arrangement on 1 cores keeps the pins"):
        plan_exits(problem, pins=["trunk=w0", "e0=w1"])


def broken(costs, **fields):
    return replace(large(3, 2, 0), costs=replace(costs, **fields))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"needs": ((), (1,))}, r"\$.needs\[1\]: got \[1\]; expected branches before 1"),
        ({"slowdown": {"w0|w1": 0.5}}, r"\$.slowdown.w0|w1: got 0.5"),
        ({"start_us": float("nan")}, r"\$.start_us: got nan"),
        ({"handover_us": {"w0>w9": (1.0, 1.0)}}, r"expected source>destination, of w0, w1"),
        ({"trunk_us": {"w0": ((1.0,),)}}, r"\$.trunk_us.w0: got 1 stages; expected 3"),
        ({"branch_us": {"w0": ((1.0,), (-1.0,))}}, r"expected finite times of at least 0"),
        ({"needs": ((),)}, r"expected 2"),
    ],
)
def test_inconsistent_costs(fields, says):
    with pytest.raises(LayoutselError, match=says):
        plan_exits(broken(large(3, 2, 0).costs, **fields))


def test_unknown_rules_and_objectives():
    for field in ("answer", "objective"):
        with pytest.raises(LayoutselError, match=f"{field}: got 'fastest'; expected one of"):
            plan_exits(replace(large(3, 2, 0), **{field: "fastest"}))


def test_plans_are_read_back(tmp_path):
    plan = plan_exits(large(4, 2, 0), model_name="net", model_hash="abc")
    plan.save(tmp_path / "plan.json")
    assert ExitPlan.load(tmp_path / "plan.json") == plan
    plan.check_model("abc")
    with pytest.raises(PlanMismatch, match="of another model, net: got the hash abc; expected def"):
        plan.check_model("def")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answer": "last"}, r"\$.answer: got 'last'; expected one of first, ordered"),
        ({"exits": ("e0", "e0", "e2", "e3")}, r"\$.exits"),
        ({"arrangement": Arrangement(trunk="w7", branches=(None,) * 3)}, r"\$.arrangement.trunk"),
        ({"arrangement": Arrangement(trunk="w0", branches=(None,))}, r"\$.arrangement.branches"),
        ({"patterns": (SurePattern(exits=(2, 1), samples=3),)}, r"\$.patterns\[0\].exits"),
        ({"patterns": (SurePattern(exits=(3,), samples=3),)}, r"\$.patterns\[0\].exits"),
        ({"patterns": (SurePattern(exits=(1,), samples=0),)}, r"\$.patterns\[0\].samples"),
        ({"policy": Policy(score="a", thresholds=(0.5, None))}, r"\$.policy.thresholds"),
        ({"bound_us": 1e9}, r"\$.bound_us"),
        ({"race": ExitRace(times_us={"planned": 1.0}, kept="off")}, r"\$.race.kept"),
        (
            {"race": ExitRace(times_us={"planned": 1.0}, kept="planned", p95_us={"off": 1.0})},
            r"\$.race.p95_us: got times of off; expected of planned",
        ),
        ({"schema_version": 2}, r"\$.schema_version"),
    ],
)
def test_inconsistent_plans_are_rejected(tmp_path, changes, says):
    replace(plan_exits(large(4, 2, 0)), **changes).save(tmp_path / "plan.json")
    with pytest.raises(DocumentError, match=says):
        ExitPlan.load(tmp_path / "plan.json")


def test_files_without_the_time_of_calls_are_read(tmp_path):
    plan = plan_exits(large(3, 2, 0))
    held = documents.to_json(plan)
    assert "call_us" not in held["costs"]
    assert ExitPlan.read(held) == plan
    held["costs"]["call_us"] = 7.0
    assert ExitPlan.read(held).costs.call_us == 7.0
    held["costs"]["call_us"] = -1.0
    with pytest.raises(DocumentError, match=r"\$.costs.call_us: got -1.0; expected a time"):
        ExitPlan.read(held)
