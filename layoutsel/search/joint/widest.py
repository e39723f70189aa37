"""Parts of all networks of a search space, each with the most channels."""

from __future__ import annotations

from collections.abc import Iterator

from layoutsel.search.parts import (
    HEAD,
    PartSignature,
    head_signature,
    operation_signature,
    stem_signature,
)
from layoutsel.search.space import Space


def widest_parts(space: Space) -> Iterator[tuple[str, PartSignature]]:
    """Yield name and signature of each part with weights or work that a network may have.

    Parts of one name occur once for each operation that the space offers there.
    """
    yield "stem", stem_signature(space)
    most = [max(cell.channels) for cell in space.cells]
    shapes = space.input_shapes(most)
    for index, (cell, shape, made) in enumerate(zip(space.cells, shapes, most, strict=False)):
        before = space.cells[index - 1].channels if index else (space.stem_channels,)
        for number, (i, j) in enumerate(cell.pairs):
            offered = (
                space.offered(index, read, channels)[number]
                for read in before
                for channels in cell.channels
            )
            for operation in dict.fromkeys(name for names in offered for name in names):
                signature = operation_signature(operation, cell.geometry((i, j), shape, made))
                if signature is not None:
                    yield f"{cell.name}.{i}-{j}", signature
    yield HEAD, head_signature(space, shapes[-1])
