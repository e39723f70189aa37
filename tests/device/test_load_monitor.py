"""The monitor of the present load, on made-up counters and on this machine."""

import logging
import os
import time

import pytest

from layoutsel.device import load_monitor
from layoutsel.device.core_load import BusyProcess
from layoutsel.device.load_counters import Counters, ThreadTime
from layoutsel.device.load_generators import generating
from layoutsel.device.load_monitor import LoadMonitor


class Machine:
    """Counters of a machine with two cores, of which this process has thread 7 on core 0."""

    def __init__(self, monkeypatch):
        self.now = Counters(
            time_s=0.0,
            busy_s={0: 0.0, 1: 0.0},
            threads={7: ThreadTime(used_s=0.0, core=0)},
            others=0,
            waited_s=0.0,
        )
        monkeypatch.setattr(load_monitor, "read_counters", lambda cores, proc: self.now)
        self.monitor = LoadMonitor([0, 1])
        self.monitor.sample()

    def after(self, busy, own=0.0, others=0, waited=0.0, seconds=0.1, times=100):
        """Load after many equal intervals, in which the cores and this process were busy."""
        for _ in range(times):
            was = self.now
            self.now = Counters(
                time_s=was.time_s + seconds,
                busy_s={core: was.busy_s[core] + busy[core] * seconds for core in (0, 1)},
                threads={7: ThreadTime(used_s=was.threads[7].used_s + own * seconds, core=0)},
                others=others,
                waited_s=None if waited is None else was.waited_s + waited * seconds,
            )
            self.monitor.sample()
        return pytest.approx(self.monitor.load.busy, abs=0.02)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def test_the_time_of_this_process_is_no_load(machine):
    assert machine.after((0.9, 0.0), own=0.9) == (0.0, 0.0)
    assert machine.after((0.9, 0.3), own=0.5, waited=0.5) == (0.4, 0.3)


def test_a_process_that_waited_for_this_one_wants_more_than_it_got(machine):
    assert machine.after((1.0, 0.0), own=0.5, others=1, waited=0.9) == (1.0, 0.0)
    assert machine.after((1.0, 0.0), own=0.5, others=1, waited=0.0) == (0.5, 0.0)


def test_a_process_that_got_less_than_this_one_wants_no_more(machine):
    assert machine.after((1.0, 0.0), own=0.7, waited=0.9) == (0.3, 0.0)


def test_several_processes_on_a_full_core(machine):
    assert machine.after((1.0, 0.2), others=2, waited=1.0) == (1.8, 0.2)


def test_the_average_follows_within_a_second_and_not_at_once(machine):
    machine.after((1.0, 0.0), others=1, times=1)
    assert 0.2 < machine.monitor.load.busy[0] < 0.5
    assert machine.after((1.0, 0.0), others=1, times=15) == (1.0, 0.0)


@pytest.mark.parametrize("content", [None, "", "cpu nonsense\n", "cpu0 1 2 3 x\nprocs_running 1\n"])
def test_unreadable_counters_count_as_idle_with_one_warning(tmp_path, content, caplog):
    if content is not None:
        (tmp_path / "stat").write_text(content)
    monitor = LoadMonitor([0, 1], proc=tmp_path)
    with caplog.at_level(logging.WARNING):
        loads = [monitor.sample() for _ in range(5)]
    assert all(load.is_idle and len(load.busy) == 2 for load in loads)
    (record,) = caplog.records
    assert "it counts as idle" in record.message
    assert str(tmp_path) in record.message


def test_the_monitor_sees_a_generator_of_this_machine():
    core = 0
    with generating([BusyProcess(core=core)], limit_s=30), LoadMonitor(interval_s=0.02) as monitor:
        end_s = time.monotonic() + 10
        while monitor.load.busy[core] < 0.9 and time.monotonic() < end_s:
            time.sleep(0.05)
        assert monitor.load.busy[core] >= 0.9
    assert len(monitor.load.busy) == len(os.sched_getaffinity(0))


def test_a_sample_is_cheap():
    monitor = LoadMonitor()
    started_s = time.process_time()
    for _ in range(100):
        monitor.sample()
    assert time.process_time() - started_s < 0.5, "at 20 samples a second, below a tenth of a core"
