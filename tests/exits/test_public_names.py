"""Public names of the room."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from layoutsel import exits


@pytest.mark.parametrize("name", exits.__all__)
def test_names_are_functions_and_types_even_beside_modules(name):
    """A module of the same name would take the place of the function once it is imported."""
    if name == "attach" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed: layoutsel[train]")
    assert importlib.util.find_spec(f"layoutsel.exits.{name}") is None
    found = getattr(exits, name)
    assert callable(found)
    assert getattr(importlib.import_module(found.__module__), found.__name__) is found


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        exits.nothing  # noqa: B018 - the access is the test
