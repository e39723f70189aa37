"""Small trained networks with three exits, kept as files so that the tests need no PyTorch.

``python tests/trained_exits.py`` trains them again, with the extra ``train``, in about a minute.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "exits"
SAMPLES = {"mnist1d": 500, "mnist5k": 150}
"""Number of test samples that are kept, by name of a network."""
NAMES = tuple(SAMPLES)


def network_path(name: str) -> Path:
    """ONNX file of a network of :data:`NAMES`, with its specification in the metadata."""
    return FOLDER / f"{name}.onnx"


def samples_path(name: str) -> Path:
    """Samples with the arrays ``x`` and ``labels`` that the network was not trained with."""
    return FOLDER / f"{name}.npz"


def main() -> None:
    """Train every network again."""
    from layoutsel.exits.training.settings import TrainingTask
    from layoutsel.exits.training.train import train

    FOLDER.mkdir(exist_ok=True)
    for name, count in SAMPLES.items():
        with tempfile.TemporaryDirectory() as folder:
            made = train(TrainingTask(data=name, size="tiny"), Path(folder))
            shutil.copy(Path(folder) / made.networks[0].file, network_path(name))
            with np.load(Path(folder) / "test.npz") as data:
                kept = {key: data[key][:count] for key in data}
        np.savez_compressed(samples_path(name), **kept)
        print(name, made.networks[0].test_accuracies)


if __name__ == "__main__":
    main()
