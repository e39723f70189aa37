"""Prediction errors in whole models, as rows of the measurement store; not training samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from layoutsel.cost import scopes
from tvm_passes.decision import Decision

SUBGRAPH, TRANSFORM, PLAN = "subgraph", "transform", "plan"
"""Kinds of rows: a sub-graph, all transforms between two layouts, a whole plan."""

_COLUMNS = (
    "kind, model, name, key, decision, predicted_us, spread_us, source, "
    "in_plan_us, in_plan_spread_us, merged, parts"
)
_CONTEXT = "machine, versions, threads"
INSERT = (
    f"INSERT OR REPLACE INTO residual ({_COLUMNS}, {_CONTEXT}, date) "
    "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
"""Statement that takes :attr:`ResidualRow.columns`, the context and the date."""
SELECT = (
    f"SELECT versions, {_COLUMNS}, date FROM residual WHERE machine=? AND threads=? "
    "ORDER BY date, kind, model, name"
)
"""Statement that takes machine and threads.

Each resulting row holds the versions, followed by the input of :meth:`ResidualRow.read`.
"""


@dataclass(frozen=True, kw_only=True)
class ResidualRow:
    """A prediction and the corresponding measurement in a whole model."""

    kind: str
    """:data:`SUBGRAPH`, :data:`TRANSFORM` (all transforms between two layouts) or :data:`PLAN`."""
    model: str
    """Hash of the model."""
    name: str
    """Id of a sub-graph; layouts of transforms, such as ``NCHW>NHWC``; name of the model."""
    key: str = ""
    """Structural hash of a sub-graph; empty for other kinds."""
    decision: str = ""
    """Decision of a sub-graph; empty for other kinds."""
    predicted_us: float
    """Predicted time of one run, microseconds."""
    spread_us: float = 0.0
    """Uncertainty of `predicted_us`, microseconds."""
    source: str = ""
    """Source of a sub-graph's prediction, such as ``learned``; empty for other kinds."""
    in_plan_us: float
    """Time measured in the whole model, microseconds."""
    in_plan_spread_us: float = 0.0
    """Half the interquartile range of `in_plan_us`, microseconds."""
    merged: bool = False
    """True if a sub-graph was merged into one partition with a neighbour."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Contribution of each part to a plan's error, microseconds.

    See :mod:`layoutsel.planning.residuals`.
    """
    date: str = ""
    """Date of the row, ISO 8601 in UTC; set by the store."""

    @property
    def columns(self) -> tuple[Any, ...]:
        """Stored values without the date: the fields in order, `parts` as JSON."""
        *front, parts, _ = (getattr(self, name) for name in self.__dataclass_fields__)
        return (*front, json.dumps(dict(parts)))

    @property
    def scopes(self) -> frozenset[str]:
        """Scopes of the row's versions; a plan depends on all units and kernels."""
        if self.kind == SUBGRAPH:
            return scopes.candidate_scopes("", Decision.parse(self.decision))
        return scopes.transform_scopes() if self.kind == TRANSFORM else scopes.every_unit()

    @classmethod
    def read(cls, row: Sequence[Any]) -> ResidualRow:
        """Make a row from :attr:`columns` and the date."""
        columns = dict(zip(cls.__dataclass_fields__, row, strict=True))
        return cls(
            **{**columns, "merged": bool(columns["merged"]), "parts": json.loads(columns["parts"])}
        )
