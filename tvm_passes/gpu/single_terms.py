"""Sums of one term, as in a depth-wise 1 x 1 convolution, without the reduction.

TVM's schedule primitives (0.27) do not recognise such a stage as a sum once loops of one step are
removed. They then inline the epilogue into both of its stores, and add a bias twice.
"""

from __future__ import annotations

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import TensorLoad


def without_single_terms(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Replace ``C[i] = 0; C[i] = C[i] + x`` over a single x by ``C[i] = 0 + x``."""
    body = tvm_ffi.structural_map(func.body, (s_tir.SBlock, _joined))
    return func if body.same_as(func.body) else func.with_body(body)


def _joined(block: s_tir.SBlock) -> s_tir.SBlock:
    """Merge the start value of a block that reduces over one element into its body."""
    first, store = block.init, block.body
    if not (isinstance(first, tirx.BufferStore) and isinstance(store, tirx.BufferStore)):
        return block
    axes = [axis for axis in block.iter_vars if axis.iter_type == tirx.IterVar.CommReduce]
    is_single = all(isinstance(a.dom.extent, tirx.IntImm) and a.dom.extent.value == 1 for a in axes)
    if not (is_single and tvm_ffi.structural_equal(first.indices, store.indices)):
        return block

    def started(load: TensorLoad) -> object:
        is_there = tvm_ffi.structural_equal(load.indices, store.indices)
        return first.value if is_there and load.source.same_as(store.buffer) else load

    value = tvm_ffi.structural_map(store.value, (TensorLoad, started))
    return s_tir.SBlock(
        [
            tirx.IterVar(a.dom, a.var, tirx.IterVar.DataPar, a.thread_tag) if a in axes else a
            for a in block.iter_vars
        ],
        block.reads,
        block.writes,
        block.name_hint,
        tirx.BufferStore(store.buffer, value, store.indices),
        None,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )
