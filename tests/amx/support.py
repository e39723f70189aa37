"""Runs small sub-graphs on tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tvm

from tests.cpu.support import TARGET, Body, finish, model, random_array
from tests.reference import relative_error, run_relax
from tvm_passes import amx
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts, subgraph_id

REASON = amx.unavailable()
needs_amx = pytest.mark.skipif(REASON is not None, reason=f"no tiles here: {REASON}")

TOLERANCES = {"bf16": 6e-3, "split-bf16": 1e-5}
"""Precision → relative L2 error of one product, inputs and result rounded."""


def answers(module: tvm.IRModule, decision: Decision) -> list[Decline | None]:
    """What the unit answers to `decision` for each sub-graph."""
    functions = PartitionSubgraphs()(module).functions.values()
    return [amx.supports(function, decision) for function in functions if subgraph_id(function)]


def run(module: tvm.IRModule, arrays: Sequence[np.ndarray], decision: Decision) -> np.ndarray:
    """The result of a stage-0 module; what does not run on tiles, runs on the CPU in plain layout."""
    partitioned = PartitionSubgraphs()(module)
    decisions = {
        subgraph_id(function): decision
        if amx.supports(function, decision) is None
        else Decision(unit="cpu")
        for function in partitioned.functions.values()
        if subgraph_id(function)
    }
    decided = RewriteLayouts(decisions)(partitioned)
    machine = finish(BACKENDS["cpu"].lower(TARGET)(decided))
    return machine["main"](*(tvm.runtime.tensor(array) for array in arrays)).numpy()


def error(body: Body, shapes: Sequence[Sequence[int]], decision: Decision) -> float:
    """Relative L2 distance of this unit's result from stock TVM's, on random inputs."""
    module = model(body, *shapes)
    assert answers(module, decision) == [None]
    arrays = [random_array(*shape, seed=index) for index, shape in enumerate(shapes)]
    return relative_error(run(module, arrays, decision), run_relax(module, arrays)[0])
