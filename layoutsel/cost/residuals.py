"""How far predictions were off in a whole model, as the measurement store keeps it: records, no training samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from layoutsel.cost import scopes
from tvm_passes.decision import Decision

SUBGRAPH, TRANSFORM, PLAN = "subgraph", "transform", "plan"
"""Kinds of rows."""

_COLUMNS = (
    "kind, model, name, key, decision, predicted_us, spread_us, source, "
    "in_plan_us, in_plan_spread_us, merged, parts"
)
_CONTEXT = "machine, versions, threads"
INSERT = (
    f"INSERT OR REPLACE INTO residual ({_COLUMNS}, {_CONTEXT}, date) "
    "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
"""Takes :attr:`ResidualRow.columns`, the context and the date."""
SELECT = (
    f"SELECT versions, {_COLUMNS}, date FROM residual WHERE machine=? AND threads=? "
    "ORDER BY date, kind, model, name"
)
"""Takes machine and threads; the rows are for :meth:`ResidualRow.read`, after their versions."""


@dataclass(frozen=True, kw_only=True)
class ResidualRow:
    """One prediction beside what was measured in a whole model."""

    kind: str
    """:data:`SUBGRAPH`; :data:`TRANSFORM`, all of a run between two layouts; :data:`PLAN`, the whole model."""
    model: str
    """Hash of the model."""
    name: str
    """Id of the sub-graph; layouts, such as ``NCHW>NHWC``; name of the model."""
    key: str = ""
    """Structural hash of a sub-graph; empty for the others."""
    decision: str = ""
    """Of a sub-graph; empty for the others."""
    predicted_us: float
    spread_us: float = 0.0
    """Uncertainty of `predicted_us`, microseconds."""
    source: str = ""
    """Where the prediction for a sub-graph comes from: ``learned``, ``measured``, ...; empty for the others."""
    in_plan_us: float
    """Measured, microseconds."""
    in_plan_spread_us: float = 0.0
    """Half the distance between the quartiles, microseconds."""
    merged: bool = False
    """True if a sub-graph was merged into one partition with a neighbour."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Of a plan: what each part adds to the difference, microseconds; see :mod:`layoutsel.planning.residuals`."""
    date: str = ""
    """ISO 8601, UTC; set by the store."""

    @property
    def columns(self) -> tuple[Any, ...]:
        """What the store keeps, the date apart: the fields in their order, `parts` as JSON."""
        *front, parts, _ = (getattr(self, name) for name in self.__dataclass_fields__)
        return (*front, json.dumps(dict(parts)))

    @property
    def scopes(self) -> frozenset[str]:
        """Scopes of the versions that it depends on: of a plan, those of all units and kernels."""
        if self.kind == SUBGRAPH:
            return scopes.candidate_scopes("", Decision.parse(self.decision))
        return scopes.TRANSFORM if self.kind == TRANSFORM else scopes.every_unit()

    @classmethod
    def read(cls, row: Sequence[Any]) -> ResidualRow:
        """Make a row of :attr:`columns` and the date."""
        columns = dict(zip(cls.__dataclass_fields__, row, strict=True))
        return cls(
            **{**columns, "merged": bool(columns["merged"]), "parts": json.loads(columns["parts"])}
        )
