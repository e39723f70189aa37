"""Compilers of CUDA that hang, take all memory or fail end within limits, with one error."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import tvm_ffi
from tvm.target import Target

from layoutsel.building import limited_cuda
from layoutsel.device.forked import Limits
from tvm_passes import cuda
from tvm_passes.errors import BuildError

TARGET = Target({"kind": "cuda", "arch": "sm_80"})
PTX = ".version 8.0"


@pytest.fixture(name="compiler")
def compiler_fixture(tmp_path, monkeypatch):
    """Put a Python program in place of nvcc; its process is named in a file."""

    def written(program: str) -> Path:
        tool = tmp_path / "nvcc"
        started = tmp_path / "started"
        tool.write_text(
            f"#!{sys.executable}\nimport os, sys, time\n"
            f"open({str(started)!r}, 'w').write(str(os.getpid()))\n{program}\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv(cuda._COMPILER, "nvcc")
        return started

    return written


def limits(monkeypatch, *, time_s=60.0, memory_bytes=4 << 30):
    monkeypatch.setattr(limited_cuda, "LIMITS", Limits(time_s=time_s, memory_bytes=memory_bytes))


def has_ended(process: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_what_the_compiler_writes_comes_back(compiler):
    compiler(f"open(sys.argv[sys.argv.index('-o') + 1], 'w').write({PTX!r})")
    assert limited_cuda.to_ptx("extern int x;", TARGET) == PTX


def test_a_compiler_that_hangs_is_ended(compiler, monkeypatch):
    started = compiler("time.sleep(600)")
    limits(monkeypatch, time_s=3.0)
    begun = time.monotonic()
    with pytest.raises(BuildError, match=r"sm_80: it took longer than 3 s. Pin the sub-graphs"):
        limited_cuda.to_ptx("extern int x;", TARGET)
    assert time.monotonic() - begun < 60
    assert has_ended(int(started.read_text()))


def test_a_compiler_that_waits_is_not_taken_for_a_lost_lock(compiler, monkeypatch):
    monkeypatch.setattr("layoutsel.device.forked._STUCK_S", 0.5)
    compiler(f"time.sleep(4); open(sys.argv[sys.argv.index('-o') + 1], 'w').write({PTX!r})")
    monkeypatch.setattr(cuda, "to_ptx", _only_elsewhere(cuda.to_ptx, os.getpid()))
    assert limited_cuda.to_ptx("extern int x;", TARGET) == PTX


def _only_elsewhere(function, process):
    def guarded(*arguments):
        assert os.getpid() != process, "compiled in this process, without limits"
        return function(*arguments)

    return guarded


def test_a_compiler_that_takes_all_memory_fails(compiler, monkeypatch):
    compiler("import resource; bytearray(resource.getrlimit(resource.RLIMIT_DATA)[0])")
    limits(monkeypatch, memory_bytes=1 << 30)
    with pytest.raises(BuildError, match=r"cannot be compiled for sm_80: .*MemoryError"):
        limited_cuda.to_ptx("extern int x;", TARGET)


def test_the_error_passes_through_tvm_as_it_is(compiler):
    compiler("sys.exit('no such luck')")
    with cuda.compiling(limited_cuda.to_ptx):
        compiled = tvm_ffi.get_global_func(cuda._REWRITE)
        with pytest.raises(Exception, match="no such luck") as caught:
            compiled("extern int x;", TARGET)
    assert "cannot be compiled for sm_80" in str(caught.value)
