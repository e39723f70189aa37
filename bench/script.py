"""What the scripts share: arguments, and rows printed and saved as they come, so that an interrupted run keeps its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from layoutsel.benchmarking.compare import save
from tvm_passes.targets import for_threads

Rows = Callable[[str, int], Iterator[dict[str, Any]]]
"""(model, threads) → rows of the result."""


def arguments_of(description: str | None) -> argparse.ArgumentParser:
    """The arguments of every script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, required=True)
    return parser


def run(rows: Rows, description: str | None, arguments: argparse.Namespace | None = None) -> None:
    """Print and save the rows of every model that the command line, or `arguments`, names."""
    arguments = arguments or arguments_of(description).parse_args()
    found: list[dict[str, Any]] = []
    with for_threads(arguments.threads):
        for model in arguments.models:
            for row in rows(model, arguments.threads):
                print(*row.values(), sep="\t", flush=True)
                found.append(row)
            save(arguments.json, found)
