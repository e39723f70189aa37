"""Small search spaces for tests of the joint search."""

from layoutsel.search.operations import OPERATIONS
from layoutsel.search.space import Cell, Space

SIGNALS = Space(
    data="mnist1d",
    input_shape=(1, 1, 40),
    classes=10,
    stem_channels=8,
    cells=(
        Cell(name="one", channels=(8, 12), operations=("skip", "conv3", "separable5", "max3")),
        Cell(name="two", channels=(12, 16), operations=("conv3", "conv5"), stride=(1, 2)),
    ),
)
"""Two layers for signals: small enough to train in seconds."""
IMAGES = Space(
    data="mnist5k",
    input_shape=(1, 28, 28),
    classes=10,
    stem_channels=6,
    cells=(
        Cell(name="wide", channels=(6, 9), operations=tuple(OPERATIONS), stride=(2, 2), nodes=3),
        Cell(name="narrow", channels=(9, 12), operations=tuple(OPERATIONS), nodes=2),
    ),
)
"""Cells with several nodes and all operations, for images."""
