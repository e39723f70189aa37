"""Adapting the learned model to a machine that it was not trained on, with a handful of measurements.

The correction of a prediction's logarithm is linear in a few features, with a normal prior around none: Bayesian linear
regression (Bishop, "Pattern Recognition and Machine Learning", section 3.3). Measurements are chosen one after the
other where the correction is most uncertain, which is the greedy D-optimal design for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs

from layoutsel import documents
from layoutsel.cost import features
from layoutsel.cost.corrections import TERMS, Adaptation, basis
from layoutsel.cost.samples import MachineProfile

_NOISE = 0.2
"""Standard deviation of a prediction's error that no correction explains, as a logarithm."""
_ROUNDS = 8
"""Of reweighting: a few predictions are far off, and must not bend the correction of all others (Huber, 1964)."""


@dataclass(frozen=True)
class Observation:
    """A measured candidate beside its prediction."""

    unit: str
    row: np.ndarray
    """Features."""
    error: float
    """Logarithm of the measured time less that of the predicted."""


def fit(observations: Sequence[Observation]) -> Adaptation:
    """The most likely correction by unit."""
    weights = {}
    for unit in sorted({observation.unit for observation in observations}):
        mine = [observation for observation in observations if observation.unit == unit]
        inputs = np.stack([basis(observation.row) for observation in mine])
        errors = np.array([observation.error for observation in mine])
        weights[unit] = tuple(float(weight) for weight in _robust(inputs, errors))
    return Adaptation(weights)


def _robust(inputs: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """The most likely coefficients, errors beyond the noise counting linearly instead of by their squares."""
    trust = np.full(len(errors), 1 / _NOISE**2)
    solution = np.zeros(inputs.shape[1])
    # The first guess is the median's, which a few outliers do not move.
    solution[0] = np.median(errors) / inputs[0, 0]
    for _ in range(_ROUNDS):
        left = np.abs(errors - inputs @ solution)
        weighted = inputs * (trust * np.minimum(1.0, _NOISE / np.maximum(left, 1e-9)))[:, None]
        solution = np.linalg.solve(
            np.eye(inputs.shape[1]) + weighted.T @ inputs, weighted.T @ errors
        )
    return solution


def most_informative(rows: Sequence[np.ndarray], units: Sequence[str], count: int) -> list[int]:
    """Choose `count` of the candidates, as numbers, each where the correction of its unit is most uncertain."""
    inputs = [basis(row) for row in rows]
    covariances = {unit: np.eye(len(inputs[0])) for unit in set(units)} if inputs else {}
    chosen: list[int] = []
    for _ in range(min(count, len(inputs))):
        best = max(
            (i for i in range(len(inputs)) if i not in chosen),
            key=lambda i: float(inputs[i] @ covariances[units[i]] @ inputs[i]),
        )
        chosen.append(best)
        x, covariance = inputs[best], covariances[units[best]]
        seen = covariance @ x
        covariances[units[best]] = covariance - np.outer(seen, seen) / (_NOISE**2 + x @ seen)
    return chosen


def adaptation_file(profile: MachineProfile, folder: Path | None = None) -> Path:
    """Where the adaptation to a machine is kept."""
    return adaptation_path(profile.machine.fingerprint, profile.threads, folder)


def adaptation_path(fingerprint: str, threads: int, folder: Path | None = None) -> Path:
    """The same, by what names the machine."""
    folder = folder or Path(platformdirs.user_cache_dir("layoutsel"))
    return folder / f"calibration-{fingerprint}-{threads}.json"


@dataclass(frozen=True, kw_only=True)
class _Document:
    model: str
    """Version of the model that is adapted."""
    features_version: int
    weights: Mapping[str, tuple[float, ...]]


def save(adaptation: Adaptation, model_version: str, file: Path) -> None:
    """Keep an adaptation of one trained model."""
    file.parent.mkdir(parents=True, exist_ok=True)
    documents.save(
        _Document(
            model=model_version, features_version=features.VERSION, weights=adaptation.weights
        ),
        file,
    )


def load(model_version: str, file: Path) -> Adaptation:
    """The adaptation of this model; none where there is no file, or it is another model's, or broken."""
    try:
        found = documents.from_json(_Document, documents.load_json(file), file=str(file))
    except (documents.DocumentError, json.JSONDecodeError):
        return Adaptation()
    if (found.model, found.features_version) != (model_version, features.VERSION):
        return Adaptation()
    if any(len(weights) != TERMS for weights in found.weights.values()):
        return Adaptation()
    return Adaptation(found.weights)
