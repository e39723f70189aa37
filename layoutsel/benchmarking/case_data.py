"""File of a case: inputs by name and expected results; imports numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

INPUT = "in:"
"""Start of the names of inputs in the file."""
EXPECTED = "out"
"""Start of the names of expected results in the file; a number of three digits follows."""


def write_case_data(
    file: Path, inputs: Mapping[str, np.ndarray], expected: Sequence[np.ndarray]
) -> None:
    """Write inputs and expected results."""
    arrays = {f"{INPUT}{name}": value for name, value in inputs.items()}
    arrays |= {f"{EXPECTED}{index:03d}": value for index, value in enumerate(expected)}
    np.savez(file, allow_pickle=False, **arrays)


def read_case_data(file: Path) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Read inputs by name, and expected results in order."""
    with np.load(file) as arrays:
        names = [name for name in arrays.files if name.startswith(INPUT)]
        inputs = {name.removeprefix(INPUT): arrays[name] for name in names}
        expected = [arrays[name] for name in sorted(arrays.files) if name.startswith(EXPECTED)]
    return inputs, expected
