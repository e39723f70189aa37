"""The suite's two tiers: `make test-full` runs everything.

`make test` leaves out what is marked nightly, and draws a third of the examples of property tests.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

import pytest

FULL = os.environ.get("LAYOUTSEL_TEST_TIER") == "full"
"""Whether everything is tested, as `make test-full` does."""


def tiered(values: Iterable[Any], daily: Collection[Any]) -> list[Any]:
    """Parameters of a test, of which those that are not in `daily` are nightly."""
    nightly = pytest.mark.nightly
    return [value if value in daily else pytest.param(value, marks=nightly) for value in values]


def tiered_rows(rows: Iterable[tuple[Any, ...]], daily: Collection[tuple[Any, ...]]) -> list[Any]:
    """Rows of several parameters of a test, of which those that are not in `daily` are nightly."""
    nightly = pytest.mark.nightly
    return [row if row in daily else pytest.param(*row, marks=nightly) for row in rows]


def examples(number: int) -> int:
    """Number of examples that a property test draws: `number` nightly, a third of them daily."""
    return number if FULL else max(4, number // 3)
