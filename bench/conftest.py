"""Shared by the suite: each model is imported, and its reference computed, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from layoutsel.benchmarking.cases import Case, write_case


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--tuned``: tune stock TVM as well, for an hour and more."""
    parser.addoption("--tuned", action="store_true", help="run the group tvm-tuned as well")


@pytest.fixture(scope="session")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The case of a model by name, written on first use."""
    cases: dict[str, Case] = {}

    def get(model: str) -> Case:
        if model not in cases:
            folder: Path = tmp_path_factory.mktemp("case")
            cases[model] = write_case(f"light:{model}", None, folder)
        return cases[model]

    return get
