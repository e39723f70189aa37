"""A step of the search that fails costs its task at most: it is named, and what was found is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiers import tiered_rows

from layoutsel.compile.session import Session
from layoutsel.device.worker import Worker
from layoutsel.tuning.database import Journal
from layoutsel.tuning.devices import LocalDevice
from layoutsel.tuning.search import searcher, tune
from layoutsel.tuning.tasks import Task, gather_tasks
from tests.tuning.conftest import record_lines
from tvm_passes.cpu import host_target

LIMIT_S = 200
LIMIT_BYTES = 3 << 29


@pytest.fixture(scope="module")
def tasks(model) -> tuple[Task, ...]:
    return gather_tasks([Session.open(str(model), units=["cpu"], threads=1)])


def tuned(tasks, folder, *, trials=1, limit_s=LIMIT_S):
    """Progress of tasks in a process that misbehaves, and how often it was started."""
    worker = Worker("tests.tuning.steps:misbehave", time_limit_s=limit_s, memory_bytes=LIMIT_BYTES)
    with Journal(folder) as journal, LocalDevice(1) as device:
        results = tune(
            tasks,
            trials=trials,
            target=host_target(),
            threads=1,
            device=device,
            journal=journal,
            worker=worker,
        )
    assert not worker.is_running
    return results, worker.starts


def steps(folder):
    """Process and number of new trials of each step."""
    return [tuple(map(int, line.split())) for line in (folder / "steps").read_text().splitlines()]


def test_the_search_has_limits():
    worker = searcher()
    assert 0 < worker.time_limit_s <= 600
    assert 0 < worker.memory_bytes <= 8 << 30


@pytest.mark.parametrize(
    ("name", "reason", "tries"),
    tiered_rows(
        [("raises", "no schedule fits", 1), ("eats", "MemoryError", 2)],
        [("raises", "no schedule fits", 1)],
    ),
)
def test_a_task_that_fails_stops_no_other(tasks, tmp_path, name, reason, tries):
    good, other, *_ = tasks
    (bad, fine), starts = tuned([replace(other, name=name), good], tmp_path)
    assert bad.error.startswith("the search failed: ")
    assert reason in bad.error
    assert (bad.trials, bad.left) == (0, 0)
    assert (fine.error, fine.trials) == (None, 1)
    assert len(record_lines(tmp_path)) == 1
    assert len(steps(tmp_path)) == tries + 1
    assert starts == tries


def test_a_step_that_hangs_is_ended_and_named(tasks, tmp_path):
    (bad,), starts = tuned([replace(tasks[0], name="hangs")], tmp_path, limit_s=3)
    assert bad.error == "the search failed: ran longer than 3 s"
    assert (bad.trials, bad.left) == (0, 0)
    assert starts == len(steps(tmp_path)) == 2


@pytest.mark.nightly
def test_a_new_process_goes_on_with_the_trials_of_one_that_died(tasks, tmp_path):
    (progress,), starts = tuned([replace(tasks[0], name="dies once")], tmp_path, trials=6)
    assert progress.error is None
    assert progress.trials == len(record_lines(tmp_path)) == 6
    assert starts == 2
    assert [count for _, count in steps(tmp_path)] == [0, 2, 2, 2]
    assert len({process for process, _ in steps(tmp_path)}) == 2
    traces = [str(line[1][0]) for line in record_lines(tmp_path)]
    assert len(set(traces)) == len(traces)
