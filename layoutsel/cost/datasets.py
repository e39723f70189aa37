"""Where data sets are looked for."""

from __future__ import annotations

from pathlib import Path

from tvm_passes.errors import LayoutselError

SHIPPED = Path(__file__).parents[2] / "data" / "measurements.jsonl.xz"
"""In a checkout of the repository: what the package's own cost model was trained on."""


def data_files(given: list[Path] | None) -> list[Path]:
    """Take the given files, or else the repository's data set.

    Raises
    ------
    LayoutselError
        If nothing is given and the package is not in a checkout.
    """
    if given:
        return given
    if not SHIPPED.exists():
        raise LayoutselError(
            "no data set: the package does not hold the one that its model was trained on. Give the "
            "repository's data/measurements.jsonl.xz, or your own logs (layoutsel profile)"
        )
    return [SHIPPED]
