"""Recognition of local response normalisation, which TVM's importer spells out."""

from __future__ import annotations

from typing import Any

CHAIN = ("nn.avg_pool3d", "squeeze", "multiply", "add", "power", "divide")
"""Operators after ``expand_dims(multiply(x, x))`` in ``x / (k + alpha * mean(x²))^beta``.

The mean is over neighbouring channels.
"""


def match_lrn(square: Any) -> list[Any] | None:
    """Return the nodes of a normalisation that starts at `square` (``multiply(x, x)``), or None.

    Nodes have ``operator``, ``consumers``, ``escapes`` and ``value``, like those of the
    partitioning.
    """
    if square.operator != "multiply" or not square.value.args[0].same_as(square.value.args[1]):
        return None
    nodes = [square]
    for operator in ("expand_dims", *CHAIN):
        last = nodes[-1]
        if last.escapes or len(last.consumers) != 1 or last.consumers[0].operator != operator:
            return None
        nodes.append(last.consumers[0])
    numerator = nodes[-1].value.args[0]
    return nodes if numerator.same_as(square.value.args[0]) else None
