"""Location of data sets."""

from __future__ import annotations

from pathlib import Path

from tvm_passes.errors import LayoutselError

SHIPPED = Path(__file__).parents[2] / "data" / "measurements.jsonl.xz"
"""Data set of the shipped cost model, in a checkout of the repository."""


def data_files(given: list[Path] | None) -> list[Path]:
    """Return the given files, or by default the repository's data set.

    Raises
    ------
    LayoutselError
        If no file is given and the package is not in a checkout.
    """
    if given:
        return given
    if not SHIPPED.exists():
        raise LayoutselError(
            "no data set: the package does not hold the one that its model was trained on. Give "
            "the repository's data/measurements.jsonl.xz, or your own logs (layoutsel profile)"
        )
    return [SHIPPED]
