"""Networks with trunk and branches on two threads in one call of the plugin, against the same in Python."""

from __future__ import annotations

import itertools
import os
import random
import threading

import numpy as np
import pytest
from exit_models import (
    assert_ends_well,
    check,
    compiled,
    expected,
    images,
    network,
    policy_of,
    recorded_exits,
    started,
)
from exit_networks import NETWORKS

from layoutsel.device.threads import available_cores, shares_openmp
from layoutsel.errors import InputError
from layoutsel.exits.arrangement import WorkerKind
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.lane_chain import LaneChain

pytestmark = pytest.mark.skipif(
    len(available_cores()) < 2 or not shares_openmp(), reason="needs two cores and the plugin"
)
SURE, UNSURE = 0.0, 1.0
KINDS = tuple(WorkerKind(name=name, unit="cpu", threads=1, cores=1) for name in "ab")
REQUESTS = 10_000


@pytest.fixture
def native(monkeypatch) -> list[int]:
    """Exits that answered through the plugin's runner."""
    return recorded_exits(monkeypatch, LaneChain)


def pinned(name="chain", workers="abbb", policy=None, **options):
    return started(name, workers, policy, KINDS, **options)


def answers_of(model, x):
    """Answers of all exits by name, stage by stage in Python."""
    return {answer.exit: answer for answer in model.all(x)}


def same(one, other) -> None:
    np.testing.assert_array_equal(one.scores, other.scores)
    assert (one.label, one.score, one.exit) == (other.label, other.score, other.exit)


@pytest.mark.parametrize("answer", ["first", "ordered"])
@pytest.mark.parametrize("workers", ["abbb", "aabb", "abab"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_pattern_has_an_answer_of_python(name, workers, answer, native):
    exits = network(name).names
    for levels in itertools.product((SURE, UNSURE, None), repeat=len(exits) - 1):
        with pinned(name, workers, policy_of(*levels), answer=answer) as model:
            chain = model._pool.chain(model.arrangement)
            for x in images(name, 3):
                before = len(native)
                found = model(x)
                assert not isinstance(chain, LaneChain) or len(native) == before + 1
                same(found, answers_of(model, x)[found.exit])
                check(found, exits, expected(name, x))
                sure = [n for n, level in zip(exits, levels, strict=False) if level == SURE]
                possible = [*sure, exits[-1]]
                assert found.exit in (possible[:1] if answer == "ordered" else possible)
            assert not model.is_off


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_native(name):
    """All but one: the trunk of ``stacked`` computes values of an exit that its branch completes."""
    with pinned(name) as model:
        model.forced((), images(name, 1))
        assert (model.lane_counts() is None) == (name == "stacked")


def test_no_answer_is_stale_while_threads_move(native):
    """The thread of the branches changes its core at random, so that either lane may be late."""
    generator = random.Random(5)
    inputs = images("chain", 12)
    exits = network("chain").names
    wanted = [expected("chain", x) for x in inputs]
    medians = [float(np.median([want[e][1] for want in wanted])) for e in range(2)]
    with pinned(policy=policy_of(*medians)) as model:
        model(inputs[0])
        (serving,) = (t for t in threading.enumerate() if t.name == "layoutsel-serve")
        first, second, *_ = available_cores()
        taken = set()
        for number in range(REQUESTS):
            if number % 50 == 0:
                os.sched_setaffinity(serving.native_id, {generator.choice((first, second))})
            index = generator.randrange(len(inputs))
            found = model(inputs[index])
            values, score, label = wanted[index][exits.index(found.exit)]
            assert np.abs(found.scores - values).max() < 1e-4
            assert found.label == label
            assert abs(found.score - score) < 1e-5
            taken.add(found.exit)
        assert not model.is_off
    assert taken >= {exits[0], exits[-1]}
    assert len(native) >= REQUESTS


def test_an_answer_stops_the_other_lane(native):
    """Of many requests, some are answered before the trunk has begun all of its sub-graphs."""
    with pinned(policy=policy_of(SURE, UNSURE)) as model:
        chain = model._pool.chain(model.arrangement)
        x = images("chain", 1)[0]
        stopped = 0
        for _ in range(300):
            found = model(x)
            counts = chain.counts()
            if counts is None:  # the branches' thread had lost its core
                continue
            assert counts.trunk <= counts.trunk_of
            stopped += counts.trunk < counts.trunk_of
            assert found.cancelled or counts.trunk == counts.trunk_of
        assert stopped
    assert len(native) >= 300


def test_patience_audits_and_deadlines_are_left_to_python(native):
    (x,) = images("chain", 1)
    with pinned(policy=policy_of(UNSURE, UNSURE, patience=2)) as model:
        model(x)
        model.all(x)
        model.audited(model.arrangement, (x,), {})
    with pinned(policy=policy_of(UNSURE, UNSURE)) as model:
        native.clear()
        model.trace(x)
        model.by(float("inf"), [x], {})
    assert native == [2]


def test_the_callers_affinity_stays(native):
    before = os.sched_getaffinity(0)
    with pinned(policy=policy_of(SURE, UNSURE)) as model:
        for x in images("chain", 5):
            model(x)
            assert os.sched_getaffinity(0) == before


def test_arrays_that_need_a_copy_have_the_same_answer(native):
    (x,) = images("on_input", 1)
    read_only = x.copy()
    read_only.flags.writeable = False
    shifted = np.frombuffer(b"\0" * 4 + x.tobytes(), x.dtype, offset=4).reshape(x.shape)
    spread = np.repeat(x, 2, axis=-1)[..., ::2]
    with pinned(
        "on_input", policy=policy_of(*[UNSURE] * (len(network("on_input").names) - 1))
    ) as model:
        wanted = model(x)
        count = len(native)
        for other in (read_only, shifted, shifted.copy(), spread):
            same(model(other), wanted)
            count += 1
            assert len(native) == count
        same(model(**{model.compiled.inputs[0].name: x}), wanted)


def test_wrong_inputs_are_the_errors_of_any_model():
    (x,) = images("chain", 1)
    with pinned(policy=policy_of(UNSURE, SURE)) as model:
        for wrong in ((x[:, :1, :1],), (x.astype(np.float64),), (x, x), ()):
            with pytest.raises(InputError):
                model(*wrong)
        check(model(x), model.exits, expected("chain", x))


def test_a_saved_model(tmp_path, native):
    exits = network("chain").names
    with pinned(policy=policy_of(SURE, UNSURE)) as model:
        x = images("chain", 1)[0]
        again = model.copy()
        with again:
            check(again(x), exits, expected("chain", x))
        file = model.save(tmp_path / "net.so")
    from layoutsel.runtime.loading import load

    with ExitModel(
        load(file), exits, model.arrangement, policy_of(SURE, UNSURE), workers=KINDS
    ) as loaded:
        native.clear()
        check(loaded(x), exits, expected("chain", x))
        assert len(native) == 1


def test_a_forked_process_answers_in_python(native):
    inputs = images("chain", 4)
    exits = network("chain").names
    with pinned(policy=policy_of(SURE, UNSURE)) as model:
        model(inputs[0])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                native.clear()
                for x in inputs:
                    check(model(x), exits, expected("chain", x))
                status = len(native)
            finally:
                os._exit(status)
        assert_ends_well(child)
        native.clear()
        check(model(inputs[1]), exits, expected("chain", inputs[1]))
        assert len(native) == 1


def test_cores_that_the_trunk_takes_from_the_last_on(native):
    arrangement = None
    with pinned(policy=policy_of(UNSURE, UNSURE)) as one:
        arrangement = one.arrangement
        other = type(arrangement)(trunk="a", branches=(None, None))
    with ExitModel(
        compiled("chain"), network("chain").names, arrangement, policy_of(UNSURE, UNSURE),
        workers=KINDS, others=[other],
    ) as model:  # fmt: skip
        (x,) = images("chain", 1)
        for model.from_last in (True, False, True):
            native.clear()
            check(model(x), model.exits, expected("chain", x))
            assert native == [2]
