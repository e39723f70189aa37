"""Primitive graph of a partition, as the plugin reads it: primitives on tensors in storages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm_passes.layout import PLAIN
from tvm_passes.layouts import LAYOUTS
from tvm_passes.strides import row_major

SCHEMA_VERSION = 2
"""Version of the JSON format that the plugin reads."""

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1, "uint8": 1, "int32": 4}
"""Size in bytes of each element type, by TVM's name."""


@dataclass(eq=False)
class Storage:
    """A region of memory: a parameter, a result, a constant, or part of the arena."""

    kind: str
    """``input``, ``weight``, ``output``, ``const`` or ``temp``."""
    bytes: int
    """Size of the region."""
    index: int = -1
    """Index of the parameter (input, weight) or of the result (output); -1 for other kinds."""
    values: tuple[float, ...] = ()
    """Contents of a ``const``."""
    dtype: str = "float32"
    """Element type of `values`."""
    home: tuple[Storage, int] | None = None
    """Storage that this one became part of, and its offset there in bytes."""

    def root(self) -> tuple[Storage, int]:
        """Return the outermost storage that contains this one, and the offset there in bytes."""
        if self.home is None:
            return self, 0
        outer, offset = self.home
        storage, further = outer.root()
        return storage, offset + further


def _same_strides(shape: Sequence[int], first: Sequence[int], second: Sequence[int]) -> bool:
    """Return whether two strides agree along every axis that is longer than one."""
    return all(a == b for size, a, b in zip(shape, first, second, strict=True) if size != 1)


@dataclass(eq=False)
class StoredTensor:
    """A logical tensor and its place in a storage."""

    shape: tuple[int, ...]
    """Logical extents."""
    storage: Storage
    """Storage that holds the elements."""
    layout: str = PLAIN
    """Order of the elements; their type is in `dtype`."""
    dtype: str = "float32"
    """Element type; that of a packable weight is the type which the primitive reads."""
    strides: tuple[int, ...] | None = None
    """Strides in elements; None if `layout` determines them."""
    offset: int = 0
    """Offset in the storage, bytes."""
    packable: bool = False
    """True if the primitive may choose the form of this weight.

    A weight that is computed at run time is then copied in each run.
    """
    packed: str = ""
    """Name of the packed form in which a weight arrives, as the plugin wrote it.

    If empty, the weight has the `shape` and `strides` of this tensor, and elements of
    `plain_dtype`.
    """
    plain_dtype: str = "float32"
    """Element type of a packable weight before it is packed."""
    tripled: tuple[StoredTensor, int] | None = None
    """Original weight, and the axis of the halves, if this tensor holds the halves of a weight.

    See :mod:`tvm_passes.onednn.halves`.
    """

    @property
    def element_bytes(self) -> int:
        """Size of one element, bytes."""
        return ELEMENT_BYTES[self.dtype]

    @property
    def bytes(self) -> int:
        """Size of the elements in bytes, without gaps."""
        return math.prod(self.shape) * self.element_bytes

    @property
    def dense_strides(self) -> tuple[int, ...] | None:
        """Strides in elements; None for a packed layout."""
        if self.strides is not None:
            return self.strides
        order = LAYOUTS.find(self.layout)
        if order.block:
            _, _, h, w = self.shape
            return row_major(self.shape) if h * w == 1 else None
        strides = row_major(order.physical_shape(self.shape))
        return tuple(strides[place] for place in order.to_logical(*range(len(self.shape))))

    def lies_as(self, layout: str) -> bool:
        """Return whether the elements have the order of `layout`, regardless of the label."""
        if self.layout == layout and self.strides is None:
            return True
        wanted = StoredTensor(self.shape, self.storage, layout).dense_strides
        have = self.dense_strides
        return wanted is not None and have is not None and _same_strides(self.shape, have, wanted)

    def view(
        self,
        shape: Sequence[int],
        layout: str = PLAIN,
        strides: Sequence[int] | None = None,
        skipped: int = 0,
    ) -> StoredTensor:
        """Return a tensor with other axes over the same elements.

        Parameters
        ----------
        shape
            Logical extents of the view.
        layout
            Order of its elements.
        strides
            Strides in elements; None if `layout` determines them.
        skipped
            Number of elements before its first one.
        """
        return StoredTensor(
            tuple(shape),
            self.storage,
            layout,
            self.dtype,
            strides=None if strides is None else tuple(strides),
            offset=self.offset + skipped * self.element_bytes,
        )

    def fills_storage(self) -> bool:
        """Return whether this tensor covers its whole storage."""
        return self.offset == 0 and self.bytes == self.storage.bytes and self.strides is None


@dataclass(frozen=True, kw_only=True)
class PostOp:
    """An operation that a primitive applies to its result before it is stored."""

    kind: str
    """``eltwise``, ``binary`` or ``sum``; a sum adds to the contents of the destination."""
    algorithm: str = ""
    """oneDNN's name of the function."""
    alpha: float = 0.0
    """First parameter of an element-wise function."""
    beta: float = 0.0
    """Second parameter of an element-wise function."""
    tensor: StoredTensor | None = None
    """Second operand of a binary function."""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Meaning of an operand's integers: (integer - zero point) * scale."""

    operand: str
    """``src``, ``weights`` or ``dst``."""
    scale: StoredTensor
    """Scales, one or one per index of the axes in `mask`."""
    mask: int = 0
    """Bits of the axes along which the scales differ."""
    zero_point: StoredTensor | None = None
    """One int32; None means zero."""


@dataclass(eq=False)
class Primitive:
    """One oneDNN primitive."""

    op: str
    """oneDNN's name of the primitive."""
    subgraph: str
    """Identifier of the sub-graph."""
    operator: str
    """Relax operator, for messages and traces."""
    inputs: list[StoredTensor]
    """Operands, in oneDNN's order."""
    output: StoredTensor
    """Result after all post-ops."""
    attrs: dict[str, Any]
    """Attributes in the plugin's format."""
    post_ops: list[PostOp] = field(default_factory=list)
    """Operations on the result, in order."""
    quantized: tuple[Quantization, ...] = ()
    """Scales and zero points of operands that hold integers."""
    implementation: int = 0
    """Number of oneDNN's implementations that are skipped."""

    def reads(self) -> Iterator[StoredTensor]:
        """Yield every tensor that the primitive reads."""
        yield from self.inputs
        yield from (post_op.tensor for post_op in self.post_ops if post_op.tensor is not None)
        for quantization in self.quantized:
            yield quantization.scale
            if quantization.zero_point is not None:
                yield quantization.zero_point

    def repacks(self) -> Iterator[StoredTensor]:
        """Yield the weights that are computed at run time and packed in every run."""
        return (t for t in self.inputs if t.packable and t.storage.kind != "weight")


@dataclass(eq=False)
class PrimitiveGraph:
    """The primitives of one partition, in order of execution."""

    symbol: str
    """Name of the partition's function."""
    num_params: int = 0
    """Number of parameters of the function."""
    nodes: list[Primitive] = field(default_factory=list)
    """Primitives in order of execution."""
    outputs: list[StoredTensor] = field(default_factory=list)
    """Results of the function."""

    def temp(
        self, shape: Sequence[int], layout: str = PLAIN, dtype: str = "float32"
    ) -> StoredTensor:
        """Create a tensor in the arena."""
        storage = Storage("temp", math.prod(shape) * ELEMENT_BYTES[dtype])
        return StoredTensor(tuple(shape), storage, layout, dtype)

    def set_outputs(self, results: Iterable[StoredTensor]) -> None:
        """Set the results of the partition; a result without a storage of its own is copied."""
        for index, result in enumerate(results):
            storage = result.storage
            whole = result.bytes == storage.bytes and result.offset == 0
            if storage.kind == "temp" and whole and result.strides is None:
                storage.kind, storage.index = "output", index
                self.outputs.append(result)
                continue
            target = Storage("output", result.bytes, index)
            layout = result.layout if result.strides is None else PLAIN
            copy = StoredTensor(result.shape, target, layout, result.dtype)
            self.nodes.append(Primitive("reorder", "", "copy", [result], copy, {}))
            self.outputs.append(copy)

    def weights(self) -> list[StoredTensor]:
        """Return the weight tensors in order of first use, one for each storage."""
        found = [t for node in self.nodes for t in node.reads() if t.storage.kind == "weight"]
        return list({id(tensor.storage): tensor for tensor in found}.values())

    def to_json(self, nodes: Sequence[Primitive] | None = None) -> str:
        """Write the graph, or some of its nodes, in the format that the plugin reads."""
        return self.numbered(nodes)[0]

    def numbered(self, nodes: Sequence[Primitive] | None = None) -> tuple[str, dict[int, int]]:
        """Return :meth:`to_json`, and the index in it of each tensor by its ``id()``."""
        writer = _Writer(self, self.nodes if nodes is None else nodes)
        return writer.text(), writer.tensors


class _Writer:
    """Writer of the JSON format; numbers storages and tensors in order of first use."""

    def __init__(self, graph: PrimitiveGraph, nodes: Sequence[Primitive]) -> None:
        self.graph = graph
        self.nodes = nodes
        self.tensors: dict[int, int] = {}
        self.storages: dict[int, int] = {}
        self.tensor_items: list[dict[str, Any]] = []
        self.storage_items: list[dict[str, Any]] = []

    def storage(self, storage: Storage) -> int:
        if id(storage) not in self.storages:
            self.storages[id(storage)] = len(self.storage_items)
            item: dict[str, Any] = {"kind": storage.kind, "bytes": storage.bytes}
            if storage.index >= 0:
                item["index"] = storage.index
            if storage.values:
                item |= {"values": list(storage.values), "type": storage.dtype}
            self.storage_items.append(item)
        return self.storages[id(storage)]

    def tensor(self, tensor: StoredTensor) -> int:
        if id(tensor) not in self.tensors:
            root, offset = tensor.storage.root()
            item: dict[str, Any] = {
                "dims": list(tensor.shape),
                "type": tensor.dtype,
                "storage": self.storage(root),
                "offset": offset + tensor.offset,
            }
            if tensor.strides is not None:
                item["strides"] = list(tensor.strides)
            else:
                item["layout"] = tensor.layout
            if tensor.packable:
                item |= {
                    "packable": 1,
                    "packed": tensor.packed,
                    "plain_type": tensor.plain_dtype,
                }
            self.tensors[id(tensor)] = len(self.tensor_items)
            self.tensor_items.append(item)
        return self.tensors[id(tensor)]

    def post_op(self, post_op: PostOp) -> dict[str, Any]:
        item: dict[str, Any] = {"kind": post_op.kind}
        if post_op.kind != "sum":
            item["algorithm"] = post_op.algorithm
        if post_op.kind == "eltwise":
            item |= {"alpha": post_op.alpha, "beta": post_op.beta}
        if post_op.tensor is not None:
            item["tensor"] = self.tensor(post_op.tensor)
        return item

    def quantization(self, quantization: Quantization) -> dict[str, Any]:
        item: dict[str, Any] = {
            "operand": quantization.operand,
            "mask": quantization.mask,
            "scale": self.tensor(quantization.scale),
        }
        if quantization.zero_point is not None:
            item["zero_point"] = self.tensor(quantization.zero_point)
        return item

    def node(self, node: Primitive) -> dict[str, Any]:
        return {
            "op": node.op,
            "subgraph": node.subgraph,
            "operator": node.operator,
            "inputs": [self.tensor(tensor) for tensor in node.inputs],
            "outputs": [self.tensor(node.output)],
            "post_ops": [self.post_op(post_op) for post_op in node.post_ops],
            "quantized": [self.quantization(quantization) for quantization in node.quantized],
            "implementation": node.implementation,
            "attrs": node.attrs,
        }

    def text(self) -> str:
        nodes = [self.node(node) for node in self.nodes]
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "symbol": self.graph.symbol,
                "num_params": self.graph.num_params,
                "num_outputs": len(self.graph.outputs),
                "storages": self.storage_items,
                "tensors": self.tensor_items,
                "nodes": nodes,
            }
        )
