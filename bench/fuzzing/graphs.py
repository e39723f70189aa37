"""Random networks of a few pieces, each a graph that ONNX Runtime takes."""

from __future__ import annotations

import numpy as np
import onnx

from fuzzing.drawing import MOST_ELEMENTS, Drawing, Value
from fuzzing.patterns import ANY, BY_RANK, OFTEN_BY_RANK, Piece

PIECES = (1, 2, 3, 3, 4, 5, 7)
"""Pieces of a graph, one of these numbers."""
TRIES = 8
"""Pieces that may not fit before a graph is finished with what it has."""


def random_graph(seed: int) -> onnx.ModelProto:
    """A network of random pieces; the same one for the same seed."""
    drawing = Drawing(np.random.default_rng(seed))
    values = [_first(drawing)]
    tries = 0
    for _ in range(drawing.pick(*PIECES)):
        while tries < TRIES and not _extend(drawing, values):
            tries += 1
    return drawing.model(_results(drawing, values))


def _first(d: Drawing) -> Value:
    batch = d.pick(1, 1, 1, 2)
    if d.chance(0.65):
        return d.input(
            batch, d.pick(1, 3, 4, 8, 16, 17, 32), *d.pick((8, 8), (7, 9), (14, 14), (1, 1))
        )
    if d.chance(0.8):
        return d.input(batch, d.pick(1, 5, 8, 17), d.pick(8, 16, 24, 33))
    return d.input(batch, d.pick(5, 16, 64))


def _extend(d: Drawing, values: list[Value]) -> bool:
    """Add a piece behind a value, the last more often than others; whether it fits."""
    value = values[-1] if d.chance(0.75) else d.pick(*values)
    own = BY_RANK.get(value.rank, ANY)
    table = own if d.chance(OFTEN_BY_RANK) else ANY
    piece: Piece = table[d.pick(*table)] if value.rank > 1 else ANY["elementwise"]
    before = len(d.nodes), len(d.weights)
    try:
        result = d.value(piece(d, value))
    except onnx.shape_inference.InferenceError:
        result = None
    if (
        result is None
        or not result.shape
        or 0 in result.shape
        or np.prod(result.shape) > MOST_ELEMENTS
    ):
        del d.nodes[before[0] :], d.weights[before[1] :]
        return False
    values.append(result)
    return True


def _results(d: Drawing, values: list[Value]) -> list[str]:
    """The last value, and sometimes one from amid the graph."""
    names = [values[-1].name]
    if len(values) > 2 and d.chance(0.3):
        names.append(d.pick(*values[1:-1]).name)
    if len(values) == 1:
        names = [d.op("Relu", values[0])]
    return names
