"""The plugin's runner of one worker's stages against the same in Python."""

from __future__ import annotations

import itertools
import logging
import math

import numpy as np
import pytest
from exit_models import images, network, policy_of, started
from exit_networks import NETWORKS

from layoutsel.exits.request import ExitRequest
from tvm_passes import onednn

SURE, UNSURE = 0.0, 1.0

pytestmark = pytest.mark.skipif(
    onednn.available() is not None, reason="the runner is part of the plugin"
)


@pytest.fixture
def native(monkeypatch) -> list[int]:
    """Exits that answered through the plugin's runner."""
    taken = []
    take = ExitRequest.take

    def recorded(self, exit_, *results):
        taken.append(exit_)
        take(self, exit_, *results)

    monkeypatch.setattr(ExitRequest, "take", recorded)
    return taken


def same(one, other) -> None:
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_equal(one.score, other.score)
    for name in ("label", "exit", "cancelled", "at_deadline"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("answer", ["first", "ordered"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_pattern_has_the_answer_of_python(name, answer, native):
    early = len(network(name).names) - 1
    for levels in itertools.product((SURE, UNSURE, None), repeat=early):
        with started(name, "aaaa", policy_of(*levels), answer=answer) as model:
            for x in images(name, 2):
                before = len(native)
                found = model(x)
                assert len(native) == before + 1
                in_python, _ = model.trace(x)
                assert len(native) == before + 1
                same(found, in_python)
                expected = [n for n, one in enumerate(levels) if one == SURE]
                assert native[-1] == [*expected, early][0]


def test_scores_that_are_no_numbers_are_unsure(native, caplog):
    (x,) = images("chain", 1)
    with (
        started("chain", "aaaa", policy_of(SURE, SURE)) as model,
        caplog.at_level(logging.WARNING),
    ):
        found = model(np.full_like(x, math.nan))
        assert native == [len(model.exits) - 1]
        assert math.isnan(found.score)
        assert "not a number" in caplog.text
        in_python, _ = model.trace(np.full_like(x, math.nan))
        same(found, in_python)


def test_patience_and_audits_are_left_to_python(native):
    (x,) = images("chain", 1)
    with started("chain", "aaaa", policy_of(UNSURE, UNSURE, patience=2)) as model:
        model(x)
        model.all(x)
        model.audited(model.arrangement, (x,), {})
        assert native == []
