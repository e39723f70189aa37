"""Search spaces of two devices by data set, and networks of them that people would write."""

from __future__ import annotations

from collections.abc import Mapping

from layoutsel.exits.training.data import source_of
from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.operations import NONE, OPERATIONS, SKIP, OperationShape
from layoutsel.search.parts import parts_of
from layoutsel.search.space import Architecture, Cell, Space
from tvm_passes.errors import LayoutselError

_OPERATIONS = ("none", "skip", "conv1", "conv3", "separable3", "separable5", "max3")
"""Operations of the cells."""


def _cells(data: str, nodes: int, stem: int, layers: tuple[tuple[int, int], ...]) -> Space:
    """Space of cells with these channels and strides; signals have no stride along the height."""
    source = source_of(data)
    height, width = source.input_shape[1:]
    return Space(
        data=data,
        input_shape=source.input_shape,
        classes=source.classes,
        stem_channels=stem,
        cells=tuple(
            Cell(
                name=f"cell{number}",
                channels=(channels,),
                operations=_OPERATIONS,
                stride=(step if height > 1 else 1, step if width > 1 else 1),
                nodes=nodes,
            )
            for number, (channels, step) in enumerate(layers, start=1)
        ),
    )


OFFLOAD_SPACES: Mapping[str, Space] = {
    "mnist1d": _cells("mnist1d", 2, 16, ((16, 1), (24, 2), (32, 2))),
    "mnist5k": _cells("mnist5k", 2, 8, ((12, 2), (16, 2), (96, 1))),
}
"""Search spaces by data set."""


def offload_space(data: str) -> Space:
    """Search space of a data set; raises :class:`LayoutselError` if there is none."""
    if data not in OFFLOAD_SPACES:
        raise LayoutselError(f"data set {data!r}: expected one of {', '.join(OFFLOAD_SPACES)}")
    return OFFLOAD_SPACES[data]


def handmade(space: Space) -> Architecture:
    """Network of convolutions with shortcuts: ``conv3`` between neighbours, else ``skip``.

    Pairs without ``skip`` have ``none``. Where nothing of this is offered, the operation with the
    most weights stands in.
    """
    shape = SupernetShape.of(space)
    return Architecture(
        channels=shape.channels,
        operations=tuple(
            tuple(
                _preferred(names, ("conv3",) if j == i + 1 else (SKIP, NONE), cell.geometry((i, j)))
                for (i, j), names in zip(cell.pairs, cell.names_offered, strict=True)
            )
            for cell in shape.cells
        ),
    )


def handmade_choice(space: Space) -> OffloadChoice:
    """Hand-made network that sends every channel after its stem, unrounded."""
    architecture = handmade(space)
    names = [part.name for part in parts_of(space, architecture).parts]
    devices = {name: FIRST if name == names[0] else SECOND for name in names}
    return OffloadChoice(architecture=architecture, devices=devices, kept={})


def _preferred(offered: tuple[str, ...], wanted: tuple[str, ...], geometry: OperationShape) -> str:
    largest = max(offered, key=lambda name: OPERATIONS[name].weights(geometry))
    return next((name for name in wanted if name in offered), largest)
