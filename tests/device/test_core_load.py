"""Generators of load: real processes on their cores, which never outlive their purpose."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layoutsel.device.core_load import BusyProcess, CoreLoad
from layoutsel.device.load_generators import generating
from tvm_passes.errors import LayoutselError

CORES = sorted(os.sched_getaffinity(0))
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def generators(parent: int) -> list[int]:
    """Processes that generate load for `parent`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"load_process.py") for word in words):
            found += [int(folder.name)] * (words[-2] == str(parent).encode())
    return found


def used_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def core_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[36])


def wait_until(holds, limit_s: float = 10.0) -> bool:
    end_s = time.monotonic() + limit_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.02)
    return holds()


@pytest.mark.parametrize("kind", ["compute", "memory"])
def test_a_generator_occupies_its_core_alone(kind):
    with generating([BusyProcess(core=0, kind=kind)], limit_s=30) as load:
        (process,) = generators(os.getpid())
        before_s = used_s(process)
        # Other processes may compute as well: wait for processor time, not for wall time.
        assert wait_until(lambda: used_s(process) > before_s + 0.3)
        assert core_of(process) == CORES[0]
        assert os.sched_getaffinity(process) == {CORES[0]}
    assert load.busy[0] == 1
    assert load.streaming == (kind == "memory")
    assert not generators(os.getpid())


def test_a_generator_uses_its_share_of_the_time_and_no_more():
    with generating([BusyProcess(core=0, duty=0.25)], limit_s=30):
        (process,) = generators(os.getpid())
        started_s, before_s = time.monotonic(), used_s(process)
        time.sleep(1.5)
        share = (used_s(process) - before_s) / (time.monotonic() - started_s)
    assert 0.05 < share < 0.32, "a busy machine may give it less"


def test_two_processes_on_one_core():
    pair = [BusyProcess(core=0, duty=0.5), BusyProcess(core=0, kind="memory", duty=1.0)]
    with generating(pair, limit_s=30) as load:
        assert len(generators(os.getpid())) == 2
    assert load.busy[0] == 1.5
    assert load.streaming == pytest.approx(1 / 1.5)


PARENT = """
import os, sys, time
from layoutsel.device.core_load import BusyProcess
from layoutsel.device.load_generators import generating
with generating([BusyProcess(core=0), BusyProcess(core=0, duty=0.25)], limit_s=60):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_generators_end_with_a_killed_parent(how):
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline().strip() == str(parent.pid).encode()
        assert len(generators(parent.pid)) == 2
        parent.send_signal(how)
    assert wait_until(lambda: not generators(parent.pid), 5.0)


def test_generators_end_at_their_time_limit():
    with generating([BusyProcess(core=0)], limit_s=0.3):
        (process,) = generators(os.getpid())
        assert wait_until(lambda: Path(f"/proc/{process}/stat").read_text().split()[2] == "Z")


def test_an_error_within_the_context_ends_the_generators():
    with pytest.raises(ZeroDivisionError), generating([BusyProcess(core=0)], limit_s=30):
        raise ZeroDivisionError
    assert not generators(os.getpid())


def test_a_missing_core_is_one_error_and_starts_nothing():
    missing = BusyProcess(core=len(CORES))
    with (
        pytest.raises(LayoutselError, match=f"got core {len(CORES)}; expected one of the"),
        generating([BusyProcess(core=0), missing], limit_s=30),
    ):
        pass
    with (
        pytest.raises(LayoutselError, match="cannot start: OSError"),
        generating([BusyProcess(core=0)], limit_s=30, cores=[4096]),
    ):
        pass
    assert not generators(os.getpid())


@pytest.mark.parametrize(
    "wrong", [{"core": -1}, {"kind": "disk"}, {"duty": 0.0}, {"duty": 1.1}, {"duty": float("nan")}]
)
def test_an_impossible_process_is_one_error(wrong):
    with pytest.raises(LayoutselError, match="expected a core from 0, a kind out of"):
        BusyProcess(**{"core": 0, **wrong})


@pytest.mark.parametrize("wrong", [{"busy": (-0.1,)}, {"busy": (0.5,), "streaming": 1.5}])
def test_an_impossible_load_is_one_error(wrong):
    with pytest.raises(LayoutselError, match="load: got"):
        CoreLoad(**wrong)


def test_the_least_busy_cores_come_first():
    load = CoreLoad(busy=(0.5, 0.0, 2.0, 0.25))
    assert [load.least_busy(count) for count in (1, 2, 4, 9)] == [
        (1,),
        (1, 3),
        (0, 1, 2, 3),
        (0, 1, 2, 3),
    ]
    assert load.busy_cores == 1.75
    assert CoreLoad.idle(3).is_idle
