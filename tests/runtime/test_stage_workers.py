"""A model of several stages: each called on its own, on workers that run at once."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from branching import BRANCHES, expected, network, planned
from small_models import convolution, image

import layoutsel
from layoutsel.device import worker_machines
from layoutsel.device.cancellation import CancelToken
from layoutsel.device.entry_points import Program
from layoutsel.errors import Cancelled, InputError, LayoutselError
from layoutsel.runtime.arrays import TENSOR_ALIGNMENT, to_tensor
from tvm_passes.onednn import available

needs_plugin = pytest.mark.skipif(available() is not None, reason=str(available()))
UNITS = [("cpu",), pytest.param(("onednn",), marks=needs_plugin)]
LIMIT_S = 30
DEPTH = 6


@pytest.fixture(scope="module", params=UNITS, ids=lambda units: units[0])
def compiled(request):
    return layoutsel.compile_plan(network(), planned(network(), request.param))


@pytest.fixture(scope="module")
def loaded(compiled, tmp_path_factory):
    return layoutsel.load(compiled.save(tmp_path_factory.mktemp("staged") / "model.so"))


def run_stages(model, x: np.ndarray, trunk, branches) -> list[np.ndarray]:
    """Results of the trunk on one worker, and then of both branches at once."""
    taps = trunk.run("trunk", {"input.0": x}).result(LIMIT_S)
    futures = [worker.run(name, taps) for name, worker in zip(BRANCHES, branches, strict=True)]
    found = [future.result(LIMIT_S) for future in futures]
    return [found[0]["output.0"], found[1]["output.1"]]


def test_stages_and_the_whole_equal_onnx_runtime(compiled, loaded):
    for model in (compiled, loaded):
        assert [stage.name for stage in model.stages] == ["trunk", "a", "b"]
        with model.worker() as first, model.worker() as second:
            for seed in range(3):
                x = image(seed)
                want = expected(network(), x)
                for found in (model(x), run_stages(model, x, first, (first, second))):
                    for got, one in zip(found, want, strict=True):
                        np.testing.assert_allclose(got, one, rtol=1e-4, atol=1e-5)


def test_branches_run_at_once(compiled):
    """Each waits, within its run, for the other one to be in its run as well."""
    together = threading.Barrier(2)

    def meet(results: list[object]) -> int:
        return together.wait(LIMIT_S)

    with compiled.worker() as first, compiled.worker() as second:
        taps = first.start("trunk", [to_tensor(image())]).result(LIMIT_S)
        futures = [
            worker.start(name, taps, finish=meet)
            for name, worker in zip(BRANCHES, (first, second), strict=True)
        ]
        assert sorted(future.result(LIMIT_S) for future in futures) == [0, 1]


@needs_plugin
def test_two_workers_run_one_partition_at_once():
    """Each has primitives of its own: the same stage runs on both, and a third set is not made."""
    import tvm_ffi

    compilations = tvm_ffi.get_global_func("layoutsel.onednn.compilations")
    plan = planned(network(), ("onednn",))
    model = layoutsel.compile_plan(network(), plan)
    last = f"{plan.held_by_stages['trunk'][-1]}.0"
    x = image()
    want = model(x)
    made = compilations()
    with model.worker() as first, model.worker() as second:
        for _ in range(3):
            futures = [worker.run("trunk", {"input.0": x}) for worker in (first, second)]
            trunks = [future.result(LIMIT_S) for future in futures]
        assert compilations() == made + 2
        np.testing.assert_array_equal(*(trunk[last] for trunk in trunks))
    for got, one in zip(model(x), want, strict=True):
        np.testing.assert_array_equal(got, one)
    assert compilations() == made + 2


class TestThreads:
    @pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one core: nothing to choose")
    def test_affinity_is_that_of_the_workers_threads_alone(self, compiled):
        """Read from /proc, those that OpenMP starts among them."""
        before = os.sched_getaffinity(0)
        core = max(before)
        known = {task: cores_of(task) for task in tasks()}
        with compiled.worker(threads=2, cores=[core]) as worker:
            worker.run("trunk", {"input.0": image()}).result(LIMIT_S)
            started = tasks() - set(known)
            allowed = [cores_of(task) for task in started]
            # The thread that watches the limit computes nothing, and stays where the caller is.
            assert allowed.count(str(core)) == len(allowed) - 1 >= 1
        assert os.sched_getaffinity(0) == before
        # Other tests' threads may end meanwhile.
        now = {task: cores_of(task) for task in known}
        assert {task: cores or known[task] for task, cores in now.items()} == known

    def test_the_callers_openmp_stays(self, compiled):
        library = ctypes.CDLL("libgomp.so.1")
        before = library.omp_get_max_threads()
        library.omp_set_num_threads(5)
        try:
            with compiled.worker(threads=1) as first, compiled.worker(threads=2) as second:
                run_stages(compiled, image(), first, (first, second))
            assert library.omp_get_max_threads() == 5
        finally:
            library.omp_set_num_threads(before)

    def test_close_ends_them(self, compiled):
        before = tasks()
        worker = compiled.worker(threads=2)
        future = worker.run("trunk", {"input.0": image()})
        worker.close()
        assert future.done()
        wait_for(lambda: not tasks() - before)
        assert not tasks() - before
        with pytest.raises(LayoutselError, match="the worker is closed"):
            worker.run("trunk", {"input.0": image()})

    def test_a_worker_that_nobody_holds_ends(self, compiled):
        before = tasks()
        compiled.worker().run("trunk", {"input.0": image()}).result(LIMIT_S)
        wait_for(lambda: not tasks() - before)
        assert not tasks() - before


def tasks() -> set[str]:
    """Threads of this process, by number."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


def cores_of(task: str) -> str:
    """The cores that a thread may use; none once it has ended."""
    try:
        lines = Path(f"/proc/self/task/{task}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list"))


class TestOneStage:
    def test_is_called_main(self, tmp_path):
        model = layoutsel.optimize(convolution(), cost="roofline", verify_speed=False, threads=1)
        loaded = layoutsel.load(model.save(tmp_path / "model.so"))
        for one in (model, loaded):
            (stage,) = one.stages
            assert stage.name == stage.function == "main"
            with one.worker() as worker:
                results = worker.run("main", {"input.0": image()}).result(LIMIT_S)
            np.testing.assert_array_equal(results["output.0"], one(image()))

    def test_artifacts_from_before_there_were_stages_are_one(self, tmp_path):
        model = layoutsel.optimize(convolution(), cost="roofline", verify_speed=False, threads=1)
        del model.header["stages"]
        assert "stages" not in model.header["plan"]
        loaded = layoutsel.load(model.save(tmp_path / "old.so"))
        assert [stage.name for stage in loaded.stages] == ["main"]
        np.testing.assert_array_equal(loaded(image()), model(image()))


class TestBadCalls:
    def test_an_unknown_stage(self, compiled):
        with compiled.worker() as worker, pytest.raises(LayoutselError, match="one of trunk, a, b"):
            worker.run("c", {})

    def test_a_wrong_input(self, compiled):
        with compiled.worker() as worker:
            with pytest.raises(InputError, match=r"'input.0' is missing"):
                worker.run("trunk", {})
            with pytest.raises(InputError, match="got float64"):
                worker.run("trunk", {"input.0": image().astype(np.float64)})

    @pytest.mark.parametrize("options", [{"threads": 0}, {"cores": [10_000]}, {"limit_s": 0}])
    def test_settings(self, compiled, options):
        with pytest.raises(LayoutselError, match="expected"):
            compiled.worker(**options)


@pytest.fixture(scope="module", params=UNITS, ids=lambda units: units[0])
def deep(request):
    return layoutsel.compile_plan(network(DEPTH), planned(network(DEPTH), request.param))


class TestCancelling:
    """A trunk of several sub-graphs, on one unit or in one partition of it, stops after as many as it is told."""

    def whole(self, deep) -> int:
        """Sub-graphs and transforms of the trunk."""
        token = CancelToken()
        with deep.worker() as worker:
            worker.run("trunk", {"input.0": image()}, token).result(LIMIT_S)
        return token.begun

    def test_stops_between_sub_graphs(self, deep):
        count = self.whole(deep)
        assert count >= DEPTH
        with deep.worker() as worker:
            want = worker.run("trunk", {"input.0": image()}).result(LIMIT_S)
            for after in range(count):
                token = CancelToken(after=after)
                future = worker.run("trunk", {"input.0": image()}, token)
                with pytest.raises(Cancelled, match=f"after {after} sub-graphs"):
                    future.result(LIMIT_S)
                assert token.begun == after
                assert token.cancelled
                again = worker.run("trunk", {"input.0": image()}).result(LIMIT_S)
                np.testing.assert_array_equal(*(next(iter(r.values())) for r in (want, again)))
            whole = CancelToken(after=count)
            worker.run("trunk", {"input.0": image()}, whole).result(LIMIT_S)
            assert whole.begun == count

    def test_leaves_no_memory_behind(self, deep, request):
        """The inputs go with the caller's last reference, even while the future is kept."""
        with deep.worker() as worker:
            futures = []
            gc.disable()
            request.addfinalizer(gc.enable)
            for after in range(DEPTH):
                x, memory = aligned(image())
                alive = weakref.ref(memory)
                futures.append(worker.run("trunk", {"input.0": x}, CancelToken(after=after)))
                with pytest.raises(Cancelled):
                    futures[-1].result(LIMIT_S)
                del x, memory
                wait_for(lambda alive=alive: alive() is None)
                assert alive() is None

    def test_from_another_thread(self, deep, monkeypatch):
        """The run is held before one of its calls until another thread has cancelled it."""
        token, held = CancelToken(), threading.Event()
        make = worker_machines.instrument

        def instrument(current, *limit):
            native = make(current, *limit)

            def hold(function, name, before, *rest) -> None:
                if before and not name.startswith("vm.builtin.") and not held.is_set():
                    held.set()
                    wait_for(lambda: token.cancelled)
                native(function, name, before, *rest)

            return hold

        def on_machine(self, machine, chain, *, repeats):
            assert repeats
            return make_function(self, machine, chain)

        make_function = Program.function
        monkeypatch.setattr(worker_machines, "instrument", instrument)
        monkeypatch.setattr(Program, "function", on_machine)  # a repeated run has no instrument
        with deep.worker() as worker:
            running = worker.run("trunk", {"input.0": image()}, token)
            queued = worker.run("trunk", {"input.0": image()}, token)
            after = worker.run("trunk", {"input.0": image()})
            assert held.wait(LIMIT_S)
            token.cancel()
            for future in (running, queued):
                with pytest.raises(Cancelled):
                    future.result(LIMIT_S)
            assert token.begun == 0
            assert set(after.result(LIMIT_S))


def aligned(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy that tensors are made of without another copy, and the array whose memory it lies in."""
    memory = np.empty(array.nbytes + TENSOR_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % TENSOR_ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy, memory


def wait_for(condition) -> None:
    """Wait until a condition holds, up to the limit."""
    pause, end = threading.Event(), time.monotonic() + LIMIT_S
    while not condition() and time.monotonic() < end:
        pause.wait(0.005)
