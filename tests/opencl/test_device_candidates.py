"""Candidates of a device by themselves, as they are measured: as often as their weights stream."""

import numpy as np
import pytest
from on_opencl import needs_device
from tvm.relax.op import nn

from layoutsel.building.candidate import build_candidate, copies_for
from layoutsel.device.tensors import copied
from layoutsel.runtime.arrays import to_array
from tests.cpu.support import TARGET, model, weights
from tvm_passes.decision import Decision
from tvm_passes.devices import HOST_DEVICE
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id

SHAPE = (1, 32, 6, 6)


@needs_device
@pytest.mark.parametrize("copies", [1, 2, 8])
def test_every_copy_runs_on_the_device(copies):
    module = PartitionSubgraphs()(
        model(lambda x: nn.relu(nn.conv2d(x, weights(64, 32, 3, 3), padding=1)), SHAPE)
    )
    (function,) = (f for f in module.functions.values() if subgraph_id(f))
    assert copies_for(function) > 1
    candidate = build_candidate(function, Decision(unit="opencl"), TARGET, copies).ready
    assert candidate.copies == copies
    found = candidate.run()
    results = [found] if copies == 1 else list(found)
    assert len(results) == copies
    for result in results:
        assert result.device.type == "opencl"
        assert np.isfinite(to_array(copied(result, HOST_DEVICE))).all()
