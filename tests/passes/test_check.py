"""The contract between stages: what breaks it is named."""

from __future__ import annotations

import pytest
from modules import conv, module_of
from tvm.relax.op import nn

from tvm_passes.check import check_decided, check_lowered
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import BuildError
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import RewriteLayouts


def decided(text: str):
    module = PartitionSubgraphs()(module_of(lambda b, x: nn.relu(b.emit(conv(x)))))
    return RewriteLayouts({SubgraphId("s0"): Decision.parse(text)})(module)


@pytest.mark.parametrize("text", ["cpu:NCHW", "cpu:NHWC", "onednn:NCHW16c"])
def test_rewritten_layouts_hold(text):
    check_decided(decided(text))


def test_a_wrong_layout_is_named():
    module = decided("cpu:NCHW16c")
    (gv,) = [gv for gv in module.functions if gv.name_hint == "subgraph_s0"]
    broken = module[gv].with_attr("layoutsel.in_layouts", ["NHWC"])
    module.update_func(gv, broken)
    with pytest.raises(BuildError, match=r"sub-graph s0 reads activation 0 in NHWC: got shape"):
        check_decided(module)


def test_a_sub_graph_that_no_unit_took_is_named():
    with pytest.raises(BuildError, match="sub-graph s0 was not lowered: unit 'nobody'"):
        check_lowered(decided("nobody:NCHW"))
