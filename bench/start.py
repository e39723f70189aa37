"""How long until a model runs? Cold and warm compiling, whole processes, with an empty and a filled cache.

``python bench/start.py light:resnet50 … --json bench/results/start.json``; what loading takes is in ``layoutsel bench``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layoutsel.benchmarking.cases import case_name
from layoutsel.benchmarking.compare import save

WARM_RUNS = 3


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Wall seconds of ``layoutsel compile``: import, measuring what is unknown, planning, racing, verifying, saving."""
    with tempfile.TemporaryDirectory() as folder:
        # The machine's peaks and the measurements both go to the user's cache folder.
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        artifact = Path(folder) / "model.so"
        command = [sys.executable, "-m", "layoutsel", "compile", model, "-o", str(artifact)]
        command += ["--threads", str(threads)]
        for cache in ("cold", *["warm"] * WARM_RUNS):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environment)
            seconds = round(time.perf_counter() - start, 1)
            yield {
                "model": case_name(model),
                "threads": threads,
                "cache": cache,
                "compile_s": seconds,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for model in arguments.models:
        for row in rows(model, arguments.threads):
            print(*row.values(), sep="\t", flush=True)
            found.append(row)
        save(arguments.json, found)


if __name__ == "__main__":
    main()
