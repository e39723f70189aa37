"""Location of data sets."""

from __future__ import annotations

from pathlib import Path

from tvm_passes.errors import LayoutselError

SHIPPED = Path(__file__).parents[2] / "data"
"""Folder with the data sets of the shipped cost model, in a checkout of the repository."""
_FILES = "measurements*.jsonl.xz"
"""Pattern of their names: one for each contribution of a machine."""


def data_files(given: list[Path] | None) -> list[Path]:
    """Return the given files, or by default the repository's data sets, in order of their names.

    Raises
    ------
    LayoutselError
        If no file is given and the package is not in a checkout.
    """
    if given:
        return given
    found = sorted(SHIPPED.glob(_FILES))
    if not found:
        raise LayoutselError(
            "no data set: the package does not hold those that its model was trained on. Give "
            f"the repository's data/{_FILES}, or your own logs (layoutsel profile)"
        )
    return found
