"""Certificates over many divisions of real observations: how often the promised accuracy is broken.

``PYTHONPATH=bench python -m exits.promise FOLDER … --json bench/results/exits_promise.json``: each folder is one of
``layoutsel exits train``. All samples that the network was not trained on are divided at random: a quarter for the
thresholds, a quarter for the certificate, a half to judge. At most the share 1 - confidence may break the promise.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.benchmarking.compare import save
from layoutsel.exits.calibrating import calibrate
from layoutsel.exits.certificate import NotCertified
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.network import read
from layoutsel.exits.observing import observe
from layoutsel.exits.training.train import DATA_FILES

DROPS, CONFIDENCE, DIVISIONS = (0.005, 0.01, 0.02), 0.9, 200


def observed(folder: Path) -> ExitMatrix:
    """Observations of all parts that the network was not trained on."""
    network = read(folder / "net.onnx")
    parts = [observe(network, folder / f"{name}.npz") for name in DATA_FILES]
    scores, predictions, labels = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("scores", "predictions", "labels")
    )
    first = parts[0]
    return ExitMatrix(
        exits=first.exits,
        score=first.score,
        scores=scores,
        predictions=predictions,
        labels=labels,
        model_hash=first.model_hash,
    )


def row(name: str, seen: ExitMatrix, drop: float) -> dict[str, Any]:
    """Divide, certify and judge."""
    draws = np.random.default_rng(0)
    broken, refused, early = 0, 0, []
    for _ in range(DIVISIONS):
        order = draws.permutation(seen.samples)
        tuning, proof, judged = (
            seen.part(np.sort(some))
            for some in np.split(order, [seen.samples // 4, seen.samples // 2])
        )
        try:
            policy = calibrate(tuning, max_drop=drop, confidence=CONFIDENCE, proof=proof)
        except NotCertified:
            refused += 1
            continue
        broken += bool(policy.losses(judged).mean() > drop)
        early.append(float(policy.sure(judged).any(axis=1).mean()))
    return {
        "network": name,
        "samples": seen.samples,
        "max_drop": drop,
        "confidence": CONFIDENCE,
        "divisions": DIVISIONS,
        "refused": refused,
        "broken": broken,
        "mean_share_early": float(np.mean(early)) if early else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    rows = []
    for folder in asked.folders:
        seen = observed(folder)
        for drop in DROPS:
            rows.append(row(folder.name, seen, drop))
            print(*rows[-1].values(), sep="\t", flush=True)
    save(asked.json, rows)


if __name__ == "__main__":
    main()
