"""A limit on instruction sets holds for every unit and for the machine's fingerprint."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from layoutsel.device.machine import this_machine
from tvm_passes.errors import LayoutselError
from tvm_passes.isa import LIMITS, VARIABLE, isa_limit

TOLD = """
import json
from layoutsel.device.machine import this_machine
from layoutsel.units.layouts import packed_layout
from tvm_passes.cpu import host_target
machine = this_machine()
print(json.dumps([machine.fingerprint, machine.isa, packed_layout(), host_target().attrs["mcpu"]]))
"""


def told(**environment):
    done = subprocess.run(
        [sys.executable, "-c", TOLD],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif("avx512f" not in this_machine().isa, reason="the CPU has no AVX-512")
def test_avx2_is_another_machine():
    fingerprint, isa, layout, mcpu = told(**{VARIABLE: "AVX2"})
    assert fingerprint != this_machine().fingerprint
    assert not any(flag.startswith(("avx512", "amx")) for flag in isa)
    assert layout == "NCHW8c"
    assert mcpu == LIMITS["AVX2"].mcpu


def test_an_unknown_limit_is_one_error(monkeypatch):
    monkeypatch.setenv(VARIABLE, "SSE41")
    with pytest.raises(LayoutselError, match="ONEDNN_MAX_CPU_ISA=SSE41: not supported"):
        isa_limit()


@pytest.mark.parametrize("value", ["", "ALL", "default"])
def test_no_limit(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    assert isa_limit() is None
