"""Where there are no tiles, the unit says why, and everything else works."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tvm_passes.amx.tiles import Operands

ASK = "from tvm_passes import amx; print(amx.unavailable())"


def test_a_limit_leaves_no_tiles():
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    asked = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout == "ONEDNN_MAX_CPU_ISA=AVX512_CORE leaves no AMX\n"


def test_a_limited_process_declines_with_that_reason():
    program = (
        "from tests.amx.support import answers; from tests.cpu.support import model, weights;"
        "from tvm import relax; from tvm_passes.decision import Decision;"
        "body = lambda x: relax.op.nn.conv2d(x, weights(32, 32, 1, 1));"
        "decision = Decision(unit='amx', layout='NHWC', precision='bf16');"
        "print(answers(model(body, (1, 32, 8, 8)), decision)[0])"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == (
        "sub-graph s0 (nn.conv2d) on amx:NHWC:bf16: got ONEDNN_MAX_CPU_ISA=AVX2 leaves no AMX; "
        "expected a CPU with AMX"
    )


@pytest.mark.parametrize(
    ("wanted", "loads"), [("aabb", "ab"), ("abcab", "abcab"), ("abaca", "abc")]
)
def test_operands_are_loaded_where_no_register_holds_them(wanted, loads):
    fetched = []
    operands = Operands(range(4, 6))
    held = {key: operands.get(key, lambda r, k=key: fetched.append((k, r))) for key in wanted}
    assert "".join(key for key, _ in fetched) == loads
    assert set(held.values()) <= {4, 5}
