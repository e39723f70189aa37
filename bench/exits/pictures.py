"""Pictures of multi-exit networks, with the measurements that they show.

``PYTHONPATH=bench python -m exits.pictures FOLDER … --json bench/results/exits_pictures.json``: each folder is one of
``layoutsel exits train --static`` (net.onnx, static1.onnx, …). Next to the JSON file, there are pictures of each data set:
accuracy by latency over thresholds, with networks without exits as dots; distributions of latencies of the trunk alone,
exits in sequence and exits parallel to the trunk, without a load and beside a busy process; a measured request with an
early answer, and one without; the predicted arrangement by load and share of requests without a sure exit. About two
minutes for each folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.benchmarking.compare import save
from layoutsel.device.machine import this_machine
from layoutsel.exits.demonstration import DemonstratedExits, present
from layoutsel.exits.training.settings import TrainingTask
from layoutsel.exits.training.train import REPORT

_QUANTILES = (0.01, *np.linspace(0.05, 0.95, 19).round(2).tolist(), 0.99)
"""Shares of the requests in the distributions of the JSON file."""


def pictured(folder: Path, pictures: Path) -> dict[str, Any]:
    """Measure and draw one network; returns what the pictures show."""
    report = documents.load_json(folder / REPORT)
    data, size = report["data"], report["size"]
    name = data if size == TrainingTask(data=data).size else f"{data}_{size}"
    with tempfile.TemporaryDirectory() as scratch:
        found = present(folder, Path(scratch), lambda text: print(f"{name}: {text}", flush=True))
        for file in found.files[1:]:
            shutil.copy(file, pictures / f"exits_{file.stem}_{name}.svg")
    return {
        "data": data,
        "size": size,
        "folder": folder.name,
        "machine": this_machine().fingerprint,
        "policy": documents.to_json(found.policy),
        "arrangement": documents.to_json(found.plan.arrangement),
        "predicted": documents.to_json(found.plan.latencies),
        "race": documents.to_json(found.plan.race),
        **_figures(found),
    }


def _figures(found: DemonstratedExits) -> dict[str, Any]:
    return {
        "accuracies": documents.to_json(found.accuracies),
        **{
            name: {
                arrangement: {**one.summary(), "quantiles_us": _quantiles(one.times_us)}
                for arrangement, one in answered.items()
            }
            for name, answered in (("idle", found.idle), ("loaded", found.loaded))
        },
        "requests": [
            {**one._asdict(), "runs": [run._asdict() for run in one.runs]} for one in found.requests
        ],
        "tables": documents.to_json(found.tables),
    }


def _quantiles(times_us: np.ndarray) -> dict[str, float]:
    values = np.quantile(times_us, _QUANTILES, method="inverted_cdf")
    return dict(zip(map(str, _QUANTILES), map(float, values), strict=True))


def main() -> None:
    """Draw the pictures of all folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    save(asked.json, [pictured(folder, asked.json.parent) for folder in asked.folders])


if __name__ == "__main__":
    main()
