"""Child processes end in time, with what they started."""

from __future__ import annotations

import sys
import time

import pytest

from layoutsel.core.processes import ProcessError, run_limited


def test_output_and_environment():
    code = "import os, sys; print(os.environ['A'], sys.stdin.read() == '')"
    printed = run_limited(
        [sys.executable, "-c", code], what="x", limit_s=30, environment={"A": "b"}
    )
    assert printed == "b True\n"


def test_a_variable_can_be_left_out(monkeypatch):
    monkeypatch.setenv("A", "b")
    code = "import os; print('A' in os.environ)"
    printed = run_limited(
        [sys.executable, "-c", code], what="x", limit_s=30, environment={"A": None}
    )
    assert printed == "False\n"


def test_a_process_that_hangs_with_a_child_that_holds_its_pipes():
    start = time.monotonic()
    with pytest.raises(ProcessError, match=r"cannot wait: .*sh took more than 0.5 s and was ended"):
        run_limited(["/bin/sh", "-c", "sleep 60 & sleep 60"], what="cannot wait", limit_s=0.5)
    assert time.monotonic() - start < 20


def test_a_child_that_outlives_the_process(tmp_path):
    alive = tmp_path / "alive"
    command = f"(sleep 2; touch {alive}) >/dev/null 2>&1 & echo done"
    assert run_limited(["/bin/sh", "-c", command], what="x", limit_s=30) == "done\n"
    time.sleep(2.5)
    assert not alive.exists()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("echo first; echo 'ld: final link failed: no room' >&2; echo 'exit status 1' >&2; exit 1", "no room"),
        ("echo last >&2; exit 3", "last"),
        ("exit 3", "exit code 3"),
        ("kill -TERM $$", "killed by SIGTERM"),
    ],
)  # fmt: skip
def test_a_process_that_fails(command, reason):
    with pytest.raises(ProcessError, match=f"cannot try: .*{reason}"):
        run_limited(["/bin/sh", "-c", command], what="cannot try", limit_s=30)


def test_a_process_and_its_children_have_a_limit_of_memory():
    program = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'bytearray(1 << 30)']))"
    with pytest.raises(ProcessError, match="cannot try: MemoryError"):
        run_limited(
            [sys.executable, "-c", program], what="cannot try", limit_s=60, memory_bytes=1 << 29
        )


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(ProcessError, match=r"none cannot be started \(No such file or directory\)"):
        run_limited([tmp_path / "none"], what="x", limit_s=30)
