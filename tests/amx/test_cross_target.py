"""Code for tiles is generated on any machine for one that has them, and on none for one that lacks them."""

from __future__ import annotations

import pytest
from tvm import relax
from tvm.target import Target

from layoutsel.building.build import generate_code
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.errors import UnitUnavailable
from tests.amx.support import answers
from tests.cpu.support import model, weights
from tvm_passes import amx
from tvm_passes.decision import Decision
from tvm_passes.targets import CrossTarget, targeting

TILES = Decision(unit="amx", layout="NHWC", precision="split-bf16")


def cross_target(mcpu: str) -> CrossTarget:
    return CrossTarget(host=Target({"kind": "llvm", "mcpu": mcpu, "num-cores": 4}))


def convolution():
    return model(lambda x: relax.op.nn.conv2d(x, weights(32, 32, 1, 1)), (1, 32, 8, 8))


def opened(mcpu: str) -> Session:
    units = ["amx", "cpu"]
    return Session.open(
        convolution(), units=units, precision="auto", cross_target=cross_target(mcpu)
    )


def test_code_for_a_machine_with_tiles():
    session = opened("sapphirerapids")
    offers = Offers.of(session)
    (subgraph,) = session.graph.subgraphs
    assert TILES in offers.candidates[subgraph.id].decisions
    assert offers.workloads[subgraph.id].hints[str(TILES)]
    lowered = session.lower({subgraph.id: TILES})
    assert lowered.decisions == {subgraph.id: TILES}
    executable = generate_code(lowered.module, lowered.target)
    waiting, assembler = [executable.mod], ""
    while waiting:
        module = waiting.pop()
        waiting.extend(module.imports)
        if module.kind == "llvm":
            assembler += module.inspect_source("asm")
    assert "tdpbf16ps" in assembler


@pytest.mark.parametrize("mcpu", ["skylake-avx512", "znver4"])
def test_no_code_for_a_machine_without(mcpu):
    with targeting(cross_target(mcpu)):
        (decline,) = answers(convolution(), TILES)
    assert "its CPU has no amx-bf16" in str(decline)
    with pytest.raises(UnitUnavailable, match="its CPU has no amx-bf16"):
        opened(mcpu)


def test_here_this_machine_decides():
    (decline,) = answers(convolution(), TILES)
    assert (decline is None) == (amx.unavailable() is None)
