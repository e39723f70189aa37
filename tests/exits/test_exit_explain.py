"""Explanations and pictures of exit plans."""

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from exit_problems import workers
from rich.console import Console

from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import ExitCosts
from layoutsel.exits.exit_gantt import predicted_requests, write_exit_gantt
from layoutsel.exits.explain import explanation, reasons
from layoutsel.exits.patterns import SurePattern
from layoutsel.exits.planner import ExitProblem, plan_exits
from layoutsel.exits.policy import Policy

SVG = "{http://www.w3.org/2000/svg}"
COSTS = ExitCosts(
    workers=workers(2),
    cores=2,
    trunk_us={"w0": ((1000.0,), (1000.0,), (1000.0, 7000.0))},
    branch_us={"w0": ((100.0,), (5000.0,)), "w1": ((100.0,), (5000.0,))},
    needs=((), ()),
)
PROBLEM = ExitProblem(
    exits=("a", "b", "final"),
    costs=COSTS,
    policy=Policy(score="margin", thresholds=(0.5, 0.5, None)),
    patterns=(SurePattern(exits=(0,), samples=60), SurePattern(exits=(), samples=40)),
)


def printed(plan):
    console = Console(width=160, record=True, file=io.StringIO())
    for part in explanation(plan):
        console.print(part)
    return console.export_text()


def test_tables_state_workers_shares_baselines_and_other_choices():
    plan = plan_exits(PROBLEM, model_name="net")
    text = " ".join(printed(plan).split())
    # 0.6 × 1.1 ms + 0.4 × 10 ms
    assert "net: mean 4.660 ms over 100 samples; no arrangement is below 4.660 ms" in text
    assert "a w1, beside the trunk 0.100 ms 1.100 ms 60.0% 60.0%" in text
    assert "exits off, trunk on w0 10.000 10.000" in text
    assert "a off 10.000 ms (+114.6%)" in text
    # In sequence, exit a costs 100 µs of the trunk's time on 40 % of the samples.
    assert "a on w0 4.700 ms (+0.9%)" in text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "it is sure of none of 100 samples"),
        ({"patterns": ()}, "no samples were observed"),
        ({"policy": Policy(score="a", thresholds=(0.5, None, None))}, "no threshold for it"),
        (
            {
                "objective": "p95",
                "patterns": (
                    SurePattern(exits=(1,), samples=60),
                    SurePattern(exits=(), samples=40),
                ),
            },
            r"with b on w1, the p95 becomes 10.000 ms \(\+0.0%\)",
        ),
        (
            {
                "patterns": (SurePattern(exits=(1,), samples=1),),
                "costs": replace(COSTS, branch_us={"w0": ((0.0,), (9000.0,))}, cores=1),
            },
            r"with b on w0, the mean becomes 11.000 ms \(\+10.0%\)",
        ),
    ],
)
def test_reasons_of_exits_that_are_off(changes, says):
    found = reasons(plan_exits(replace(PROBLEM, **changes)))
    assert re.search(says, found["b"])


def test_pinned_exits_name_the_pin():
    assert "it is pinned so" in reasons(plan_exits(PROBLEM, pins=["a=off"]))["a"]


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_chart_has_an_early_and_a_late_request(answer, tmp_path):
    plan = plan_exits(replace(PROBLEM, answer=answer))
    requests = {one.name: one for one in predicted_requests(plan)}
    assert (requests["early"].exit, requests["early"].answer_us) == (0, 1100.0)
    assert (requests["late"].exit, requests["late"].answer_us) == (2, 10_000.0)
    write_exit_gantt(requests.values(), plan.exits, tmp_path / "a.svg", title="net")
    tree = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    bars = [one.text for one in tree.iter(f"{SVG}title")]
    assert "trunk1, stopped: 1,000 to 2,000 µs" not in bars
    assert "trunk1: 1,000 to 2,000 µs" in bars
    assert "a: 1,000 to 1,100 µs" in bars
    texts = [one.text for one in tree.iter(f"{SVG}text")]
    assert "a answers at 1.100 ms" in texts
    assert "final answers at 10.000 ms" in texts


def test_a_plan_without_early_answers_has_a_chart(tmp_path):
    plan = plan_exits(replace(PROBLEM, patterns=()))
    requests = list(predicted_requests(plan))
    write_exit_gantt(requests, plan.exits, tmp_path / "a.svg", title="net")
    assert [one.name for one in requests] == ["late"]
