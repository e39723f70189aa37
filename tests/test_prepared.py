"""Processes that are copies of a prepared one do as those that Python starts."""

import os
import signal
import subprocess
import sys

import pytest

from tests.prepared import run_python

TELLING = """
import atexit, os, signal, sys, threading, time
import layoutsel, tvm
print(sys.argv, os.getcwd(), os.environ["TOLD"], __name__, sys.path[0], repr(sys.stdin.read()))
print(sorted(name for name in sys.modules if name.startswith(("layoutsel.", "tvm_passes."))))
print("a warning", file=sys.stderr)
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
atexit.register(print, "the end")
threading.Thread(target=lambda: (time.sleep(0.2), print("after the main thread"))).start()
sys.exit(3)
"""


def test_a_program_does_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = run_python("-c", TELLING, "one", 2, limit_s=60, environment={"TOLD": "this"})
    usual = subprocess.run(
        [sys.executable, "-c", TELLING, "one", "2"],
        env={**os.environ, "TOLD": "this"},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=60,
    )
    assert (prepared.stdout, prepared.stderr) == (usual.stdout, usual.stderr)
    assert prepared.stdout.endswith("interrupted\nafter the main thread\nthe end\n")
    assert prepared.returncode == usual.returncode == 3


def test_a_signal_is_its_exit_code():
    killed = run_python("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", limit_s=60)
    assert killed.returncode == -signal.SIGKILL


def test_an_error_is_printed():
    done = run_python("-c", "import layoutsel\nlayoutsel.nothing", limit_s=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("module 'layoutsel' has no attribute 'nothing'\n")


def test_a_process_that_takes_too_long_is_ended():
    with pytest.raises(subprocess.TimeoutExpired):
        run_python("-c", "import time; time.sleep(60)", limit_s=1)


def test_what_python_reads_at_its_start_needs_a_new_process():
    told = run_python(
        "-c", "import sys; print('tvm' in sys.modules, sys.flags.hash_randomization)",
        limit_s=60, environment={"PYTHONHASHSEED": "0"},
    )  # fmt: skip
    assert told.stdout == "False 0\n"
