"""Other threads of a team stay off the core of the thread that calls, whose affinity stays as it is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from small_models import convolution, image

import layoutsel
from tvm_passes.onednn import available

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a single core"),
]
CORES = frozenset(os.sched_getaffinity(0))
TRIES = 100
"""The system may move the calling thread between its choice of a core and the run."""


@pytest.fixture(scope="module", params=["cpu", "onednn"])
def model(request):
    """A model whose parallel regions are those of TVM's kernels, or of oneDNN's."""
    return layoutsel.optimize(
        convolution(), cost="roofline", verify_speed=False, units=[request.param], threads=2
    )


def left_out(threads):
    """Cores that some of these threads are kept off."""
    return {frozenset(CORES - os.sched_getaffinity(one)) for one in threads} - {frozenset()}


def others():
    return {int(task.name) for task in Path("/proc/self/task").iterdir()} - {
        threading.get_native_id()
    }


def run_in_thread(function):
    """A pool of OpenMP belongs to the thread that calls."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_the_core_of_the_caller_is_left_out(model):
    def follow():
        before = others()
        for core in sorted(CORES)[:2]:
            for _ in range(TRIES):
                os.sched_setaffinity(0, {core})  # moves this thread there
                os.sched_setaffinity(0, CORES)
                model(image())
                if left_out(others() - before) == {frozenset({core})}:
                    break
            else:
                return f"never left out: {core}"
            assert os.sched_getaffinity(0) == CORES
        return None

    assert run_in_thread(follow) is None


def test_a_caller_on_one_core_leaves_its_team_there(model):
    def stay():
        core = min(CORES)
        os.sched_setaffinity(0, {core})
        before = others()
        model(image())
        return {tuple(os.sched_getaffinity(one)) for one in others() - before}, core

    found, core = run_in_thread(stay)
    assert found <= {(core,)}


def test_a_caller_that_may_leave_its_core_later_has_its_team_apart(model):
    def widen():
        core = min(CORES)
        os.sched_setaffinity(0, {core})
        before = others()
        model(image())
        for _ in range(TRIES):
            os.sched_setaffinity(0, {core})
            os.sched_setaffinity(0, CORES)
            model(image())
            if left_out(others() - before) == {frozenset({core})}:
                return True
        return False

    assert run_in_thread(widen)


def test_more_threads_than_cores_stay_free():
    """Else all but one would share the remaining cores."""
    crowded = layoutsel.optimize(
        convolution(), cost="roofline", verify_speed=False, units=["cpu"], threads=len(CORES) + 1
    )

    def crowd():
        before = others()
        crowded(image())
        return left_out(others() - before)

    assert run_in_thread(crowd) == set()
