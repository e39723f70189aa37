"""Adaptation of the learned model to a new machine from a few dozen measurements.

Measurements are chosen one at a time: each time the one that leaves the least uncertainty about all
candidates (active learning by expected variance: Cohn, "Neural network exploration using optimal
experiment design", 1996).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import platformdirs

from layoutsel import documents
from layoutsel.cost import features
from layoutsel.cost.corrections import NOISE, Adaptation, Traits, covariance
from layoutsel.cost.samples import MachineProfile
from tvm_passes.errors import LayoutselError


def useful(adaptation: Adaptation) -> tuple[Adaptation, float]:
    """Correct only units whose held-out errors the correction reduces by more than chance.

    The mean reduction exceeds its standard error.

    Returns
    -------
    tuple
        Correction, in which the errors of other units count as zero, and the mean absolute error
        that remains on held-out candidates, natural logarithm of time.
    """
    errors = np.array(adaptation.errors)
    left, units = adaptation.held_out, np.array(adaptation.traits.units)
    for unit in adaptation.units:
        mine = units == unit
        gained = np.abs(errors[mine]) - np.abs(left[mine])
        if gained.mean() <= gained.std() / len(gained) ** 0.5:
            left[mine], errors[mine] = errors[mine], 0.0
    kept = replace(adaptation, errors=tuple(errors.tolist()))
    return kept, float(np.mean(np.abs(left))) if len(left) else 0.0


def most_informative(pool: Traits, count: int) -> list[int]:
    """Choose `count` candidates to measure; returns their indices in `pool`.

    Each is the one whose measurement reduces the total variance of the pool most, after the earlier
    ones. Candidates thus count as much as others resemble them.
    """
    shared = covariance(pool, pool)
    chosen: list[int] = []
    for _ in range(min(count, len(pool))):
        gains = (shared**2).sum(axis=0) / (np.diag(shared) + NOISE**2)
        gains[chosen] = -np.inf
        best = int(gains.argmax())
        chosen.append(best)
        column = shared[:, best].copy()
        shared -= np.outer(column, column) / (column[best] + NOISE**2)
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
    adaptation: Adaptation
    """Observed errors."""


def save(adaptation: Adaptation, model_version: str, file: Path) -> None:
    """Write the adaptation of one trained model to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    documents.save(
        _Document(model=model_version, features_version=features.VERSION, adaptation=adaptation),
        file,
    )


def load(model_version: str, file: Path) -> Adaptation | None:
    """Read the adaptation of one trained model from `file`.

    Without a file, or if it is damaged or belongs to another model, the result is None.
    """
    try:
        found = documents.from_json(_Document, documents.load_json(file), file=str(file))
    except (LayoutselError, json.JSONDecodeError):
        return None
    is_current = (found.model, found.features_version) == (model_version, features.VERSION)
    return found.adaptation if is_current else None
