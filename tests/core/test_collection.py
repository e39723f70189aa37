"""No garbage is collected within a pause, and afterwards it is as before."""

import gc

import pytest

from layoutsel.core.collection import paused_collection


def collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def test_nothing_is_collected_within_a_pause():
    with paused_collection():
        before = collections()
        kept = [[] for _ in range(100_000)]
        assert collections() == before
    assert gc.isenabled()
    kept += [[] for _ in range(100_000)]
    assert collections() > before


@pytest.mark.parametrize("was_enabled", [True, False])
def test_an_error_restores_what_was(was_enabled):
    try:
        if not was_enabled:
            gc.disable()
        with pytest.raises(ZeroDivisionError), paused_collection():
            1 / 0  # noqa: B018
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()
