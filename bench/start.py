"""How long until a model runs? Cold and warm compiling, whole processes, with an empty and a filled cache.

``python bench/start.py light:resnet50 … --json bench/results/start.json``; what loading takes is in ``layoutsel bench``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from script import run

from layoutsel.benchmarking.cases import case_name

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


if __name__ == "__main__":
    run(rows, __doc__)
