"""Threads belong to a model: several models with different numbers of threads, and a caller with settings of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from small_models import convolution, image

import layoutsel
from layoutsel.device.own_threads import OwnThreads
from tvm_passes.onednn import available
from tvm_passes.onednn.plugin import get_num_threads

needs_plugin = pytest.mark.skipif(available() is not None, reason=str(available()))


def model(threads: int, unit: str = "cpu"):
    return layoutsel.optimize(
        convolution(), cost="roofline", verify_speed=False, units=[unit], threads=threads
    )


def compilations() -> int:
    return int(tvm_ffi.get_global_func("layoutsel.onednn.compilations")())


@pytest.fixture(scope="module")
def openmp():
    """The OpenMP library, with a number of threads that no model has."""
    library = ctypes.CDLL("libgomp.so.1")
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(5)
    yield library
    library.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def models():
    return {threads: model(threads, "onednn") for threads in (1, 2)}


@needs_plugin
class TestTwoModels:
    def test_in_turns(self, models, openmp):
        x, affinity = image(), os.sched_getaffinity(0)
        wanted = {threads: one(x) for threads, one in models.items()}
        made = compilations()
        for _ in range(3):
            for threads, one in models.items():
                np.testing.assert_array_equal(one(x), wanted[threads])
        assert compilations() == made
        assert openmp.omp_get_max_threads() == 5
        assert os.sched_getaffinity(0) == affinity

    def test_at_once(self, models, openmp):
        feeds = [image(seed) for seed in range(4)]
        wanted = {threads: [one(x) for x in feeds] for threads, one in models.items()}
        made = compilations()
        start = threading.Barrier(2)

        def work(threads: int) -> list[np.ndarray]:
            openmp.omp_set_num_threads(3)  # of this thread
            start.wait(10)
            results = [models[threads](x) for _ in range(20) for x in feeds]
            assert openmp.omp_get_max_threads() == 3
            return results

        with ThreadPoolExecutor(2) as pool:
            found = dict(zip(models, pool.map(work, models), strict=True))
        for threads, results in found.items():
            for number, result in enumerate(results):
                np.testing.assert_array_equal(result, wanted[threads][number % len(feeds)])
        assert compilations() == made
        assert openmp.omp_get_max_threads() == 5

    def test_each_computes_on_its_own(self, models):
        counts = {threads: one.own_threads.run(get_num_threads) for threads, one in models.items()}
        assert counts == {1: 1, 2: 2}

    def test_the_caller_may_use_the_plugin_with_other_settings(self, models):
        before = get_num_threads()
        models[1](image())
        assert get_num_threads() == before


def test_a_failed_call_leaves_nothing_behind():
    threads = OwnThreads(3)
    before = get_num_threads() if available() is None else None

    def fail() -> None:
        raise ValueError("on purpose")

    for _ in range(2):
        with pytest.raises(ValueError, match="on purpose"):
            threads.run(fail)
    if before is not None:
        assert get_num_threads() == before


def test_timed_calls_run_one_after_the_other():
    one = model(1)
    call = one.timed_call(one.bind(image()))
    inside = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        inside.set()
        leave.wait(10)

    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(one.own_threads.run, hold)
        assert inside.wait(10)
        timed = pool.submit(call)
        with pytest.raises(TimeoutError):
            timed.result(0.2)
        leave.set()
        holder.result(10)
        timed.result(10)


WITHOUT_PLUGIN = """
import os, sys
import numpy as np
import tvm_passes.onednn.plugin as plugin
plugin.find_plugin = lambda *_: None
import layoutsel
affinity = os.sched_getaffinity(0)
x, *results = np.load(sys.argv[1]).values()
models = [layoutsel.load(path) for path in sys.argv[2:]]
for _ in range(3):
    for model, result in zip(models, results, strict=True):
        np.testing.assert_allclose(model(x), result, rtol=1e-5, atol=1e-5)
assert plugin.available() is not None
assert os.sched_getaffinity(0) == affinity
"""


def test_without_the_plugin_affinity_stays(tmp_path: Path):
    """TVM's own pool then computes, which changes the affinity of the thread that calls it."""
    models = [model(threads) for threads in (1, 2)]
    paths = [one.save(tmp_path / f"{one.threads}.so") for one in models]
    np.savez(tmp_path / "data.npz", image(), *(one(image()) for one in models))
    subprocess.run(
        [sys.executable, "-c", WITHOUT_PLUGIN, tmp_path / "data.npz", *paths],
        check=True,
        timeout=60,
    )
