"""Search spaces of layers by data set, for searches without a file of their own."""

from __future__ import annotations

from collections.abc import Mapping

from layoutsel.exits.training.data import source_of
from layoutsel.search.space import Cell, Space
from tvm_passes.errors import LayoutselError

_LAYERS = ("skip", "conv3", "conv5", "separable3", "separable5", "max3")
"""Operations of layers that keep height and width."""
_STRIDED = ("conv3", "conv5", "separable3", "separable5", "max3")
"""Operations of layers that halve them."""


def _chain(data: str, strides: tuple[int, ...], widths: tuple[tuple[int, ...], ...]) -> Space:
    """Space of layers in a row; a stride of 2 halves each axis that is longer than 1."""
    source = source_of(data)
    height, width = source.input_shape[1:]
    cells = tuple(
        Cell(
            name=f"layer{number}",
            channels=channels,
            operations=_LAYERS if step == 1 else _STRIDED,
            stride=(step if height > 1 else 1, step if width > 1 else 1),
        )
        for number, (step, channels) in enumerate(zip(strides, widths, strict=True), start=1)
    )
    return Space(
        data=data,
        input_shape=source.input_shape,
        classes=source.classes,
        stem_channels=16,
        cells=cells,
    )


CHAINS: Mapping[str, Space] = {
    "mnist1d": _chain(
        "mnist1d",
        (1, 2, 1, 1, 2, 1),
        ((32, 64), (64, 96), (64, 96), (96, 128), (96, 128), (128, 160)),
    ),
    "mnist5k": _chain(
        "mnist5k",
        (2, 1, 1, 2, 1, 1),
        ((16, 32), (16, 32), (32, 48), (32, 64), (48, 64), (64, 96)),
    ),
}
"""Spaces of ``search joint`` by data set."""


def default_space(data: str) -> Space:
    """Space of ``search joint`` for a data set; raises :class:`LayoutselError` if unknown."""
    if data not in CHAINS:
        raise LayoutselError(f"data set {data!r}: expected one of {', '.join(CHAINS)}")
    return CHAINS[data]


def check_data(space: Space) -> None:
    """Reject a space whose shapes differ from those of its data set."""
    source = source_of(space.data)
    if (tuple(space.input_shape), space.classes) != (source.input_shape, source.classes):
        raise LayoutselError(
            f"space for {space.data!r}: got inputs {list(space.input_shape)} and {space.classes} "
            f"classes; expected {list(source.input_shape)} and {source.classes}, as the data has"
        )
