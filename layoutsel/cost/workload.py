"""Workloads from shapes alone: operators, shapes, types and attributes, without TVM."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from layoutsel.core.workload import Workload
from layoutsel.cost.operations import Operation, TypedShape
from tvm_passes.errors import LayoutselError
from tvm_passes.operators import Role, Trait, has_trait, role

Hints = Mapping[str, Mapping[str, float]]
"""Facts about the code that units would generate, by decision and name."""


@dataclass(frozen=True, kw_only=True)
class SubgraphShapes:
    """A sub-graph as operator calls and tensors.

    Raises
    ------
    LayoutselError
        If there is no operation or no result.
    """

    operations: tuple[Operation, ...]
    """Operations in order of execution; those that dequantise operands may come first."""
    inputs: tuple[TypedShape, ...]
    """Activations that the sub-graph reads."""
    weights: tuple[TypedShape, ...] = ()
    """Constants that are parameters, such as filters and biases."""
    outputs: tuple[TypedShape, ...]
    """Results of the sub-graph."""
    named_anchor: str = ""
    """Anchor as named by the partition; if empty, the operations determine it."""

    def __post_init__(self) -> None:
        if not self.operations or not self.outputs:
            raise LayoutselError(
                f"a sub-graph of {len(self.operations)} operations and {len(self.outputs)} "
                "results; expected at least one of each"
            )

    @cached_property
    def own(self) -> tuple[Operation, ...]:
        """Operations after those that dequantise operands; all if there are no others."""
        for position, operation in enumerate(self.operations):
            if operation.operator != "dequantize":
                return self.operations[position:]
        return self.operations

    @property
    def anchor(self) -> str:
        """Name of the first anchor operator; ``elementwise`` or ``movement`` without one."""
        if self.named_anchor:
            return self.named_anchor
        names = [operation.operator for operation in self.own]
        anchors = [name for name in names if role(name) is Role.ANCHOR]
        moves = all(role(name) is Role.MOVEMENT for name in names)
        return anchors[0] if anchors else (Role.MOVEMENT if moves else Role.ELEMENTWISE).value

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of the operators, without those that dequantise operands."""
        return tuple(operation.operator for operation in self.own)

    @property
    def flops(self) -> int:
        """Number of arithmetic operations; a multiply-add counts as two."""
        return sum(operation.flops for operation in self.operations)

    @property
    def attributes(self) -> dict[str, tuple[int, ...]]:
        """Integer attributes of the first operation, and those of the first permutation.

        A permutation adds its ``axes``, and its input shape as ``permuted``.
        """
        found = {
            name: tuple(value)
            for name, value in self.own[0].attributes.items()
            if name in ATTRIBUTES
        }
        for operation in self.own:
            if operation.operator == "permute_dims":
                shape = operation.inputs[0].shape
                axes = operation.attributes.get("axes") or tuple(reversed(range(len(shape))))
                return {**found, "permuted": shape, "axes": tuple(axes)}
        return found

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights read in one run; for a look-up table, only the rows taken."""
        reads_rows = has_trait(self.anchor, Trait.READS_ROWS)
        return _bytes(self.outputs if reads_rows else self.weights)

    @property
    def key(self) -> str:
        """Hash of the description, shared by equal ones; not the structural hash of a function."""
        described = (
            self.anchor,
            [
                (one.operator, one.inputs, one.outputs, sorted(one.attributes.items()))
                for one in self.operations
            ],
            *(self.inputs, self.weights, self.outputs),
        )
        return f"shapes-{hashlib.sha256(repr(described).encode()).hexdigest()[:16]}"

    def workload(self, *, key: str = "", hints: Hints | None = None) -> Workload:
        """Make the workload, the input of cost models.

        Parameters
        ----------
        key
            Structural hash of the function, the key of its measurements; by default :attr:`key`.
        hints
            Facts about the code that units stated; without them, learned predictions are less
            certain.
        """
        return Workload(
            key=key or self.key,
            operator=self.anchor,
            flops=self.flops,
            weight_bytes=self.weight_bytes,
            activation_bytes=_bytes((*self.inputs, *self.outputs)),
            operators=self.operators,
            inputs=tuple(tensor.shape for tensor in self.inputs),
            weights=tuple(tensor.shape for tensor in self.weights),
            outputs=tuple(tensor.shape for tensor in self.outputs),
            attributes=self.attributes,
            hints=hints or {},
        )


ATTRIBUTES = ("strides", "padding", "dilation", "groups", "pool_size", "axis", "axes")
"""Attributes of operators that cost models use."""


def _bytes(tensors: Sequence[TypedShape]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
