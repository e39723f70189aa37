"""Standard output that is full, closed or read by nobody; files that find no room."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from command import COMMAND, refused, run_here

QUICK = ("--cost", "roofline", "--threads", 1, "--units", "cpu")


@contextmanager
def room(count):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def started(*arguments, stdout=subprocess.DEVNULL, closed=None):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        preexec_fn=partial(os.close, closed) if closed is not None else None,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compile", "--help"]])
def test_standard_output_that_is_full(arguments):
    with Path("/dev/full").open("wb") as full:
        done = started(*arguments, stdout=full)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("layoutsel: error: cannot write to standard output: No space left")


def test_results_that_find_no_room(plan_file):
    with Path("/dev/full").open("wb") as full:
        for options in ((), ("--json",), ("--subgraph", "first")):
            done = started("explain", plan_file, *options, stdout=full)
            assert done.returncode == 2, done.stderr
            (line,) = done.stderr.splitlines()
            assert "cannot write to standard output: No space left" in line


def test_standard_streams_that_are_closed(plan_file):
    for arguments in (["--help"], ["explain", plan_file]):
        done = started(*arguments, closed=1)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "cannot write to standard output: Bad file descriptor" in line
    assert started("explain", plan_file, closed=0).returncode == 0
    assert started("explain", plan_file, closed=2).returncode == 0
    assert started("explain", plan_file.parent / "none", closed=2).returncode == 2


def test_nobody_reads(plan_file):
    reading, writing = os.pipe()
    os.close(reading)
    done = started("explain", plan_file, stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def buffered() -> dict[str, str]:
    """The environment without a variable that hides what is left in buffers at exit."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}


def test_standard_error_that_is_full(plan_file):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "explain", plan_file.parent / "none"],
            stderr=full, stdout=subprocess.PIPE, timeout=120, check=False, env=buffered(),
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")


def test_files_that_find_no_room(tmp_path, model, plan_file, artifact):
    """In one process: importing takes longer than all of these."""
    cases = [
        ("plan", model, "-o", tmp_path / "p.json", *QUICK),
        ("explain", plan_file, "--dot", tmp_path / "g.dot"),
        ("run", artifact, "--repeat", 1, "--trace", tmp_path / "t.json"),
        ("runtime", "-o", tmp_path),
        ("compile", model, "-o", tmp_path / "m.so", "--plan", plan_file),
    ]
    for arguments in cases:
        with room(300):
            done = run_here(*arguments)
        assert done.returncode == 2, (arguments, done)
        *warnings, line = done.stderr.splitlines()
        assert line.startswith("layoutsel: error: cannot "), line
        assert all(other.startswith("layoutsel: warning: ") for other in warnings)
        assert not list(tmp_path.iterdir()), arguments


def test_devices_are_not_replaced(model):
    line = refused("plan", model, "-o", "/dev/null", *QUICK)
    assert "a device or a pipe" in line
    assert Path("/dev/null").is_char_device()


def test_errors_of_a_place_are_the_users(model, monkeypatch):
    def fail(*_arguments, **_options):
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("layoutsel.cli.plan.opened", fail)
    assert "/somewhere: Permission denied" in refused("plan", model)
