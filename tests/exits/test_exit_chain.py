"""The plugin's runner of one worker's stages against the same in Python."""

from __future__ import annotations

import itertools
import logging
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from exit_models import images, network, policy_of, recorded_exits, started
from exit_networks import NETWORKS

from layoutsel.errors import InputError, WorkerClosed
from layoutsel.exits.exit_chain import ExitChain
from tvm_passes import onednn

SURE, UNSURE = 0.0, 1.0
LIMIT_S = 60

pytestmark = pytest.mark.skipif(
    onednn.available() is not None, reason="the runner is part of the plugin"
)


@pytest.fixture
def native(monkeypatch) -> list[int]:
    """Exits that answered through the plugin's runner."""
    return recorded_exits(monkeypatch, ExitChain)


def same(one, other) -> None:
    assert one.scores.dtype == other.scores.dtype
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
        assert native[-1] == len(model.exits) - 1
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


def test_arrays_that_need_a_copy_have_the_same_answer(native):
    (x,) = images("chain", 1)
    spread = np.repeat(x, 2, axis=-1)
    read_only = x.copy()
    read_only.flags.writeable = False
    shifted = np.frombuffer(b"\0" * 4 + x.tobytes(), x.dtype, offset=4).reshape(x.shape)
    with started("chain", "aaaa", policy_of(UNSURE, SURE)) as model:
        expected = model(x)
        count = len(native)
        for other in (x[...], spread[..., ::2], read_only, shifted, shifted.copy(), x.tolist()):
            given = np.asarray(other, np.float32) if isinstance(other, list) else other
            same(model(given), expected)
            count += 1
            assert len(native) == count
        same(model(**{model.compiled.inputs[0].name: x}), expected)


def test_answers_keep_their_values_and_inputs_can_change(native):
    one, two = images("chain", 2)
    with started("chain", "aaaa", policy_of(UNSURE, SURE)) as model:
        array = one.copy()
        first = model(array)
        kept = first.scores.copy()
        array[:] = two
        second = model(array)
        np.testing.assert_array_equal(first.scores, kept)
        same(second, model(two))
        assert not np.array_equal(first.scores, second.scores)


def test_wrong_inputs_are_the_errors_of_any_model():
    (x,) = images("chain", 1)
    with started("chain", "aaaa", policy_of(UNSURE, SURE)) as model:
        for wrong in ((x[:, :1, :1],), (x.astype(np.float64),), (x, x), ()):
            with pytest.raises(InputError):
                model(*wrong)
        same(model(x), model.trace(x)[0])
    with pytest.raises(WorkerClosed):
        model(x)


def test_requests_of_several_threads_have_their_own_answers():
    inputs = images("chain", 4)
    with started("chain", "aaaa", policy_of(UNSURE, SURE)) as model:
        wanted = [model(x) for x in inputs]

        def work(number: int) -> None:
            for _ in range(200):
                same(model(inputs[number]), wanted[number])

        with ThreadPoolExecutor(len(inputs)) as pool:
            for done in [pool.submit(work, number) for number in range(len(inputs))]:
                done.result(LIMIT_S)
