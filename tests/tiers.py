"""The suite's two tiers: `make test` leaves out what is marked nightly; `make test-full` runs everything."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def tiered(values: Iterable[Any], daily: Collection[Any]) -> list[Any]:
    """Parameters of a test, of which those that are not in `daily` are nightly."""
    nightly = pytest.mark.nightly
    return [value if value in daily else pytest.param(value, marks=nightly) for value in values]
