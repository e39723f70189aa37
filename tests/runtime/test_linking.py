"""Linking shared libraries: a full disk, a missing compiler and one that hangs are errors, and the process lives on."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from layoutsel.runtime import linking
from tvm_passes.errors import LayoutselError


@I.ir_module
class Doubled:
    @R.function
    def main(x: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            y = R.add(x, x)
            R.output(y)
        return y


@pytest.fixture(scope="module")
def executable():
    return tvm.compile(Doubled, "llvm")


@contextmanager
def room(count):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def doubled(module):
    machine = tvm.relax.VirtualMachine(module, tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(np.ones((4, 4), "float32")))
    np.testing.assert_array_equal(result.numpy(), 2)


def test_a_library_that_runs(executable, tmp_path):
    linking.export_library(executable, tmp_path / "library.so")
    doubled(tvm.runtime.load_module(str(tmp_path / "library.so")))
    assert [file.name for file in tmp_path.iterdir()] == ["library.so"]
    doubled(linking.runnable(executable))


@pytest.mark.parametrize("count", [0, 1000, 4096, 8192])
def test_a_full_disk_ends_no_process(executable, tmp_path, count):
    # LLVM itself would print "IO failure on output stream" and end the process.
    with room(count), pytest.raises(LayoutselError, match="cannot link a shared library"):
        linking.export_library(executable, tmp_path / "library.so")


def test_compilers(executable, tmp_path, monkeypatch):
    with pytest.raises(LayoutselError, match="none cannot be started"):
        linking.export_library(executable, tmp_path / "l.so", compiler=str(tmp_path / "none"))
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nsleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(linking, "_LINK_LIMIT_S", 0.5)
    with pytest.raises(LayoutselError, match=r"hanging took more than 0.5 s and was ended"):
        linking.export_library(executable, tmp_path / "l.so", compiler=str(hanging))
    hanging.write_text("#!/bin/sh\necho 'error: not today' >&2\nexit 1\n")
    with pytest.raises(LayoutselError, match="cannot link a shared library: error: not today"):
        linking.export_library(executable, tmp_path / "l.so", compiler=str(hanging))
    assert not (tmp_path / "l.so").exists()
