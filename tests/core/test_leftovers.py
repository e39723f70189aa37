"""Temporary files of killed processes go with the next write into their folder; those of living ones stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from layoutsel.core import leftovers
from layoutsel.core.files import replacing, write_text
from layoutsel.core.leftovers import temporary_name

WRITE = """
import sys, time
from layoutsel.core.files import replacing
with replacing(sys.argv[1]) as stream:
    stream.write(b"half")
    stream.flush()
    print("written", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process amid a write."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path / "other")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "written\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_those_of_processes_that_are_gone(tmp_path, writer):
    (temporary,) = names(tmp_path)
    write_text(tmp_path / "text", "x")
    assert names(tmp_path) == [temporary, "text"]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    write_text(tmp_path / "text", "y")
    assert names(tmp_path) == ["text"]


def test_two_writes_of_one_process_leave_each_other_alone(tmp_path):
    with replacing(tmp_path / "one") as stream:
        stream.write(b"1")
        write_text(tmp_path / "two", "2")
    assert names(tmp_path) == ["one", "two"]


def test_a_number_that_another_process_has_by_now(tmp_path):
    world, pid, started, number = temporary_name().removeprefix(".layoutsel-").split("-")
    (tmp_path / f".layoutsel-{world}-{pid}-{int(started) - 1}-{number}").write_bytes(b"left")
    write_text(tmp_path / "text", "x")
    assert names(tmp_path) == ["text"]


@pytest.mark.parametrize(
    "name",
    [".layoutsel-{other}-4194303-1-{zeros}.tmp", ".layoutsel-{world}-4194303-1-{zeros}.tmp.sqlite",
     ".layoutsel-{zeros}.tmp", "layoutsel-{world}-4194303-1-{zeros}.tmp"],
)  # fmt: skip
def test_files_of_other_machines_and_other_names_stay(tmp_path, name):
    world = temporary_name().split("-")[1]
    other = f"{int(world, 16) ^ 1:08x}"
    file = tmp_path / name.format(world=world, other=other, zeros="0" * 16)
    file.write_bytes(b"theirs")
    write_text(tmp_path / "text", "x")
    assert file.read_bytes() == b"theirs"


def test_a_machine_that_tells_nothing_removes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "_BOOT", tmp_path / "none")
    (tmp_path / f".layoutsel-00000000-4194303-1-{'0' * 16}.tmp").write_bytes(b"left")
    write_text(tmp_path / "text", "x")
    assert len(names(tmp_path)) == 2
