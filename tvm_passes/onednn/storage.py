"""Shared storage that makes copies superfluous: concatenations and sums in place."""

from __future__ import annotations

import dataclasses
import math

from tvm_passes.layout import PLAIN, block_size
from tvm_passes.onednn.graph import PostOp, Primitive, PrimitiveGraph, Storage, StoredTensor


def merge_storages(graph: PrimitiveGraph) -> None:
    """Remove the copies of `graph` that a better choice of storage makes superfluous."""
    _concat_in_place(graph)
    _sum_in_place(graph)


def _last_first_touch(graph: PrimitiveGraph) -> dict[Storage, tuple[int, int]]:
    """Return the indices of the first and last node that touch each root storage."""
    touched: dict[Storage, tuple[int, int]] = {}
    for time, node in enumerate(graph.nodes):
        for tensor in (*node.reads(), node.output):
            root, _ = tensor.storage.root()
            first, _ = touched.get(root, (time, time))
            touched[root] = (first, time)
    return touched


def _parts_contiguous(node: Primitive) -> bool:
    """Return whether the parts of a concatenation are contiguous in its result."""
    result = node.output
    axis = int(node.attrs["axis"])
    if result.strides is not None or node.post_ops or math.prod(result.shape[:axis]) != 1:
        return False
    if result.layout == PLAIN:
        return True
    block = block_size(result.layout)
    if block is None or axis != 1:
        return False
    return all(part.layout == result.layout for part in node.inputs)


def _concat_in_place(graph: PrimitiveGraph) -> None:
    """Make the producers of a concatenation's parts write into its result.

    The last concatenation is processed first, so that a chain of them (DenseNet) becomes one
    storage.
    """
    replacement: dict[int, list[Primitive]] = {}
    for node in reversed(graph.nodes):
        if node.op != "concat" or not _parts_contiguous(node):
            continue
        copies: list[Primitive] = []
        offset = node.output.offset
        for part in node.inputs:
            alike = part.layout == node.output.layout
            if not alike or not _move(part, node.output.storage, offset):
                copies.append(_copy_into(node, part, offset))
            offset += part.bytes
        replacement[id(node)] = copies
    graph.nodes = [new for node in graph.nodes for new in replacement.get(id(node), [node])]


def _move(tensor: StoredTensor, storage: Storage, offset: int) -> bool:
    """Place `tensor` inside `storage`; returns False if its own storage cannot move."""
    own = tensor.storage
    if own.kind != "temp" or own.home is not None or not tensor.fills_storage():
        return False
    if storage.root()[0] is own:
        return False
    own.home = (storage, offset)
    return True


def _copy_into(node: Primitive, part: StoredTensor, offset: int) -> Primitive:
    """Create the copy of one part into the result of a concatenation."""
    result = node.output
    target = StoredTensor(part.shape, result.storage, result.layout, result.dtype, offset=offset)
    return dataclasses.replace(node, op="reorder", inputs=[part], output=target, attrs={})


def _sum_in_place(graph: PrimitiveGraph) -> None:
    """Accumulate into a residual that has no later consumer, instead of reading it separately."""
    touched = _last_first_touch(graph)
    for time, node in enumerate(graph.nodes):
        if node.op not in ("convolution", "deconvolution", "matmul"):
            continue
        for position, post_op in enumerate(node.post_ops):
            if not _may_accumulate(node, post_op, time, touched):
                continue
            residual = post_op.tensor
            assert residual is not None
            outer, _ = node.output.storage.root()
            residual.storage.home = (node.output.storage, node.output.offset)
            first, last = touched.get(outer, (time, time))
            touched[outer] = (min(first, touched[residual.storage][0]), last)
            node.post_ops[position] = PostOp(kind="sum")
            break


def _may_accumulate(
    node: Primitive, post_op: PostOp, time: int, touched: dict[Storage, tuple[int, int]]
) -> bool:
    """Return whether the addition `post_op` may overwrite its residual with the sum."""
    residual, result = post_op.tensor, node.output
    if post_op.kind != "binary" or post_op.algorithm != "add" or residual is None:
        return False
    storage = residual.storage
    alike = all(
        getattr(residual, key) == getattr(result, key) for key in ("shape", "layout", "dtype")
    )
    free = storage.kind == "temp" and storage.home is None and residual.fills_storage()
    if not alike or not free or result.strides is not None:
        return False
    if sum(tensor.storage.root()[0] is storage for tensor in node.reads()) > 1:
        return False  # A second read would see the sum instead of the residual.
    outer, _ = result.storage.root()
    return outer is not storage and touched[storage][1] == time
