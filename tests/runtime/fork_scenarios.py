"""Ways to fork around a loaded model. Run as a program: ``fork_scenarios.py MODEL INPUTS [no-plugin]`` prints JSON.

Each child has some seconds to compute what the parent did and to end.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

LIMIT_S = 10
OK = "ok"


def child(work: Callable[[], str]) -> str:
    """What `work` says in a forked process, which ends as a program does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = work()
        except Exception as error:  # the test judges it
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        sys.exit(0)
    os.close(writer)
    deadline = time.monotonic() + LIMIT_S
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with os.fdopen(reader) as file:
        said = file.read()
    if not ended:
        return f"hangs, and said {said!r}"
    return said if status == 0 else f"ended with {status}, and said {said!r}"


def scenarios(path: str, x: np.ndarray) -> dict[str, str]:
    """What the children of every way to fork say."""
    import layoutsel
    import layoutsel.device

    fresh, used = layoutsel.load(path), layoutsel.load(path)
    device = layoutsel.device.load(path)
    found = {}

    def same(result: np.ndarray) -> str:
        return OK if np.array_equal(result, wanted) else "wrong"

    found["not used before"] = child(lambda: "" if fresh(x).size == 0 else OK)
    wanted = used(x)
    device(x)
    found["used before"] = child(lambda: same(used(x)))
    found["without numpy"] = child(lambda: same(np.from_dlpack(device(x))))
    found["loads its own"] = child(lambda: same(layoutsel.load(path)(x)))
    found["only ends"] = child(lambda: OK)
    found["timed and traced"] = child(lambda: OK if timed_and_traced(used, x) else "nothing")
    found["a grandchild"] = child(lambda: (used(x), child(lambda: same(used(x))))[1])
    found["in a thread of the child"] = child(lambda: in_thread(lambda: same(used(x))))
    found["in a thread that forks"] = in_thread(
        lambda: (used(x), child_of_thread(used, x, wanted))[1]
    )
    found["while a call runs"] = busy(lambda: used(x), lambda: child(lambda: same(used(x))))

    def process() -> str:
        forked = multiprocessing.get_context("fork").Process(target=used, args=(x,))
        forked.start()
        forked.join(LIMIT_S)
        if forked.exitcode is None:
            forked.kill()
        return OK if forked.exitcode == 0 else f"ended with {forked.exitcode}"

    found["multiprocessing"] = process()
    used.own_threads.turn.fork_waits_s = 0.1
    wait = lambda: used.own_threads.run(time.sleep, 1)  # noqa: E731 - as the others
    found["while a call does not end"] = busy(wait, lambda: child(lambda: same(used(x))))
    found["while a model is compiled"] = while_compiling(lambda: same(used(x)))
    found["compiles, while a model is compiled"] = while_compiling(compiles)
    found["the parent, afterwards"] = same(used(x))
    return found


def compiles() -> str:
    """Whether a small model can be compiled."""
    import layoutsel

    layoutsel.optimize("light:squeezenet", cost="roofline", verify_speed=False, units=["cpu"])
    return OK


def while_compiling(work: Callable[[], str]) -> str:
    """What a child says of `work` that is forked while another thread compiles."""
    from layoutsel import api

    compiling, go_on = threading.Event(), threading.Event()

    def compile_slowly() -> None:
        with api._turn:
            compiling.set()
            go_on.wait(LIMIT_S)

    thread = threading.Thread(target=compile_slowly)
    thread.start()
    compiling.wait()
    said = child(work)
    go_on.set()
    thread.join()
    return said


def timed_and_traced(model, x: np.ndarray) -> bool:
    """Whether the other ways to call a model work."""
    model.timed_call([x])()
    return bool(model.trace([x]))


def busy(call: Callable[[], object], work: Callable[[], str]) -> str:
    """What `work` says while another thread makes calls."""
    stop, started = threading.Event(), threading.Event()

    def calls() -> None:
        while not stop.is_set():
            started.set()
            call()

    thread = threading.Thread(target=calls)
    thread.start()
    started.wait()
    time.sleep(0.05)
    said = work()
    stop.set()
    thread.join()
    return said


def in_thread(work: Callable[[], str]) -> str:
    """What `work` says in a thread."""
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(work()))
    thread.start()
    thread.join(2 * LIMIT_S)
    return said[0] if said else "hangs"


def child_of_thread(model, x: np.ndarray, wanted: np.ndarray) -> str:
    """What the child of a thread says, which ends at once."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT_S)
        os.write(writer, OK.encode() if np.array_equal(model(x), wanted) else b"wrong")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    return said if os.waitpid(pid, 0)[1] == 0 else "hangs"


if __name__ == "__main__":
    if "no-plugin" in sys.argv:
        from tvm_passes.onednn import plugin

        plugin.find_plugin = lambda *_: None
    print(json.dumps(scenarios(sys.argv[1], np.load(sys.argv[2]))))
