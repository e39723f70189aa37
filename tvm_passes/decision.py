"""Decisions: the plan of a model maps identifiers of sub-graphs to them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NewType

from tvm_passes.devices import NAME, NUMBER, DeviceId, kind_of_unit
from tvm_passes.errors import IllegalDecision

SubgraphId = NewType("SubgraphId", str)
"""Identifier of a sub-graph."""

DIRECT = "direct"
"""Default algorithm; every unit has it."""

_PLACED_UNIT = re.compile(rf"([^:@]+)(?:@(?:({NAME})/)?({NUMBER}))?", re.ASCII)
"""Syntax of a unit with an optional node and index of its device."""


@dataclass(frozen=True, kw_only=True, order=True)
class Decision:
    """Unit, layout, precision, algorithm and device of one sub-graph.

    The text form is ``unit[@[node/]index]:layout[:precision[:algorithm]]``, for example
    ``onednn:NHWC``, ``cpu:NCHW16c:f32:winograd`` or ``cuda@1:NCHW``.
    """

    unit: str
    """Name of the compute unit, such as ``cpu`` or ``onednn``."""
    layout: str = "NCHW"
    """Name of a layout of :mod:`tvm_passes.layout`."""
    precision: str = "f32"
    """Arithmetic precision: ``f32``, ``bf16``, ``split-bf16``, or ``int8`` of a quantised model."""
    algorithm: str = DIRECT
    """Name of an algorithm of :mod:`tvm_passes.algorithms`, such as ``direct`` or ``winograd``."""
    node: str = ""
    """Name of the node of the device; empty for this node."""
    index: int = 0
    """Index among the devices of the unit's kind on the node, from 0."""

    def __str__(self) -> str:
        parts = [self.placed_unit, self.layout, self.precision, self.algorithm]
        defaults = ["", "", "f32", DIRECT]
        while len(parts) > 2 and parts[-1] == defaults[len(parts) - 1]:
            parts.pop()
        return ":".join(parts)

    @classmethod
    def parse(cls, text: str) -> Decision:
        """Read the text form of a decision.

        Raises
        ------
        IllegalDecision
            If `text` has fewer than two or more than four fields, an empty one, or a wrong device.
        """
        first, *others = text.split(":")
        if not 1 <= len(others) <= 3 or not all((first, *others)):
            raise IllegalDecision(
                f"cannot read decision {text!r}: expected unit:layout[:precision[:algorithm]], "
                f"such as onednn:NHWC or cpu:NCHW16c"
            )
        unit, device = parse_placed_unit(first)
        names = ("layout", "precision", "algorithm")
        return cls(
            unit=unit,
            node=device.node,
            index=device.index,
            **dict(zip(names, others, strict=False)),
        )

    @property
    def device(self) -> DeviceId:
        """Device of the sub-graph."""
        return DeviceId(self.node, kind_of_unit(self.unit), self.index)

    @property
    def placed_unit(self) -> str:
        """Unit with its device, such as ``cuda@1``; see :func:`placed_unit`."""
        return placed_unit(self.unit, self.node, self.index)

    def on(self, device: DeviceId) -> Decision:
        """Return the same decision for another device of the unit's kind."""
        return replace(self, node=device.node, index=device.index)


def placed_unit(unit: str, node: str, index: int) -> str:
    """Write a unit with its device: ``cuda@1`` or ``cpu@edge0/0``.

    The first device of this node is the default: ``cuda``.
    """
    if node:
        return f"{unit}@{node}/{index}"
    return f"{unit}@{index}" if index else unit


def parse_placed_unit(text: str) -> tuple[str, DeviceId]:
    """Read the result of :func:`placed_unit`; ``cuda@0`` is ``cuda``.

    Raises
    ------
    IllegalDecision
        If `text` is neither a unit nor a unit with a device.
    """
    found = _PLACED_UNIT.fullmatch(text)
    if found is None:
        raise IllegalDecision(
            f"cannot read unit {text!r}: expected unit[@[node/]index], such as cuda, cuda@1 or "
            f"cpu@edge0/0"
        )
    unit, node, index = found.groups()
    return unit, DeviceId(node or "", kind_of_unit(unit), int(index or 0))
