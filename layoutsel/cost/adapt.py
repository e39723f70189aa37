"""Adaptation of the learned model to a new machine from a handful of measurements.

The correction of a prediction's logarithm is linear in a few features, with a normal prior centred
on no correction: Bayesian linear regression (Bishop, "Pattern Recognition and Machine Learning",
section 3.3). Measurements are chosen one at a time where the correction is most uncertain: the
greedy D-optimal design.
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
"""Standard deviation of the error that no correction explains, natural logarithm of time."""
_ROUNDS = 8
"""Rounds of reweighting, which limit the influence of outliers on the fit (Huber, 1964)."""


@dataclass(frozen=True)
class Observation:
    """A measured candidate with the error of its prediction."""

    unit: str
    """Unit of the candidate."""
    row: np.ndarray
    """Features of the candidate, float32; see :data:`layoutsel.cost.features.NAMES`."""
    error: float
    """Natural logarithm of the ratio of measured to predicted time."""


def fit(observations: Sequence[Observation]) -> Adaptation:
    """Fit the most likely correction of each unit."""
    weights = {}
    for unit in sorted({observation.unit for observation in observations}):
        mine = [observation for observation in observations if observation.unit == unit]
        inputs = np.stack([basis(observation.row) for observation in mine])
        errors = np.array([observation.error for observation in mine])
        weights[unit] = tuple(float(weight) for weight in _robust(inputs, errors))
    return Adaptation(weights)


def _robust(inputs: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Fit the most likely coefficients; errors beyond the noise count linearly, not quadratically.

    Parameters
    ----------
    inputs
        Terms of each observation, (observations, terms).
    errors
        Errors to explain, (observations,), natural logarithm of time.
    """
    trust = np.full(len(errors), 1 / _NOISE**2)
    solution = np.zeros(inputs.shape[1])
    # Start from the median, which a few outliers do not move.
    solution[0] = np.median(errors) / inputs[0, 0]
    for _ in range(_ROUNDS):
        left = np.abs(errors - inputs @ solution)
        weighted = inputs * (trust * np.minimum(1.0, _NOISE / np.maximum(left, 1e-9)))[:, None]
        solution = np.linalg.solve(
            np.eye(inputs.shape[1]) + weighted.T @ inputs, weighted.T @ errors
        )
    return solution


def most_informative(rows: Sequence[np.ndarray], units: Sequence[str], count: int) -> list[int]:
    """Choose the `count` most informative candidates; returns their indices.

    Each choice is the candidate where the correction of its unit is most uncertain, given the
    earlier choices.

    Parameters
    ----------
    rows
        Features of each candidate.
    units
        Unit of each candidate.
    count
        Number of candidates to choose.
    """
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
    """File of the adaptation to a machine; by default in the user's cache folder."""
    return adaptation_path(profile.machine.fingerprint, profile.threads, folder)


def adaptation_path(fingerprint: str, threads: int, folder: Path | None = None) -> Path:
    """File of the adaptation to the machine with this fingerprint and number of threads."""
    folder = folder or Path(platformdirs.user_cache_dir("layoutsel"))
    return folder / f"calibration-{fingerprint}-{threads}.json"


@dataclass(frozen=True, kw_only=True)
class _Document:
    """File format of an adaptation."""

    model: str
    """Version of the adapted model."""
    features_version: int
    """Version of the features, :data:`layoutsel.cost.features.VERSION`."""
    weights: Mapping[str, tuple[float, ...]]
    """Coefficients of the correction by unit."""


def save(adaptation: Adaptation, model_version: str, file: Path) -> None:
    """Write the adaptation of one trained model to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    documents.save(
        _Document(
            model=model_version, features_version=features.VERSION, weights=adaptation.weights
        ),
        file,
    )


def load(model_version: str, file: Path) -> Adaptation:
    """Read the adaptation of one trained model from `file`.

    Without a file, or if it is damaged or belongs to another model, the result corrects nothing.
    """
    try:
        found = documents.from_json(_Document, documents.load_json(file), file=str(file))
    except (documents.DocumentError, json.JSONDecodeError):
        return Adaptation()
    if (found.model, found.features_version) != (model_version, features.VERSION):
        return Adaptation()
    if any(len(weights) != TERMS for weights in found.weights.values()):
        return Adaptation()
    return Adaptation(found.weights)
