"""Options name one objective; contradictory ones are refused before anything slow starts."""

from __future__ import annotations

import pytest

from layoutsel.compile.options import Options
from layoutsel.errors import LayoutselError
from layoutsel.planning.values import MAKESPAN, SUM, WITHIN_ERROR


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, SUM),
        ({"precision": "bf16"}, SUM),
        ({"objective": SUM}, SUM),
        ({"parallel": True}, MAKESPAN),
        ({"objective": MAKESPAN}, MAKESPAN),
        ({"objective": MAKESPAN, "parallel": True}, MAKESPAN),
        ({"precision": "auto"}, WITHIN_ERROR),
        ({"precision": "auto", "objective": WITHIN_ERROR}, WITHIN_ERROR),
    ],
)
def test_all_ways_to_ask_for_an_objective_give_the_same(options, expected):
    assert Options(**options).objective_name == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objective": SUM, "parallel": True},
            r"got --objective sum \(objective sum\) and --parallel \(objective makespan\); expected "
            "options that ask for one objective",
        ),
        (
            {"precision": "auto", "parallel": True},
            r"got --parallel \(objective makespan\) and --precision auto \(objective within-error\)",
        ),
        ({"objective": SUM, "precision": "auto"}, r"sum\) and --precision auto \(objective within"),
        ({"objective": "beauty"}, "unknown objective 'beauty'; expected one of makespan, sum"),
        (
            {"objective": WITHIN_ERROR},
            "objective 'within-error': got no limit of rel_error; expected one, such as "
            "--precision auto --max-rel-error 1e-3",
        ),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(LayoutselError, match=message):
        Options(**options)
