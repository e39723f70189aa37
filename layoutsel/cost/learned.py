"""A cost model learned from logs: gradient-boosted trees on top of the roofline, with an uncertainty.

For each compute unit one booster predicts ``log(time) - log(roofline)``, and another two quantiles of the first one's
error on workloads that it has not seen. A third kind does the same for boundaries. Chen, Guestrin, "XGBoost" (KDD 2016).
"""

from __future__ import annotations

import hashlib
import lzma
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.cost import boundary_features, features
from layoutsel.cost.model import Cost, Infeasible, TensorSpec, Workload
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import MachineProfile
from layoutsel.files import replacing
from layoutsel.planning import documents
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

FORMAT_VERSION = 2
PRETRAINED = Path(__file__).parent / "pretrained"
"""The model that ships with the package."""
BOUNDARY = "boundary"
"""Name of the boundaries' model, beside those of the units."""
QUANTILES = (0.1, 0.9)
_TO_QUARTILE = 0.6745 / 1.2816
"""Half the distance of the quartiles, against that of the deciles; of a normal distribution."""
_FILE = "model.json"
_UNSEEN_MACHINE, _UNSEEN_OPERATOR = 0.2, 0.4
"""Further half distance of the quartiles, as a logarithm, of predictions for what no log was of."""


@dataclass(frozen=True, kw_only=True)
class PartCard:
    """What one part of a model, a unit's or the boundaries', was trained on."""

    samples: int
    workloads: int
    machines: tuple[str, ...]
    """Names of their profiles, or of the devices."""
    operators: tuple[str, ...]
    """Anchor operators; kinds of boundaries."""
    forms: tuple[str, ...]
    """Precisions; layouts and units of boundaries."""
    within_10: float
    """Share of samples predicted within 10 %, each by a model that had not seen its workload."""
    mape: float
    """Mean absolute error of those predictions, as a share of the time."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a trained model is."""

    format_version: int
    features_version: int
    version: str
    """Short hash of all boosters."""
    features: tuple[str, ...]
    """Names of the sub-graphs' features, then of the boundaries'."""
    seed: int
    parts: Mapping[str, PartCard]
    """By unit; :data:`BOUNDARY` for boundaries."""
    device_features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By unit on a device, the names of its features behind those of all sub-graphs."""


@dataclass(frozen=True)
class Part:
    """Two boosters, as XGBoost's bytes."""

    point: bytes
    quantiles: bytes

    @cached_property
    def boosters(self) -> tuple[Any, Any]:
        """Both, ready to predict with one thread."""
        return _booster(self.point), _booster(self.quantiles)

    def predict(self, row: np.ndarray, margin: float) -> tuple[float, float]:
        """Natural logarithm of the microseconds, and half the distance of the quartiles of its error."""
        point, quantiles = self.boosters
        rows = row.reshape(1, -1)
        value = float(point.inplace_predict(rows, base_margin=np.array([margin], np.float32))[0])
        low, high = quantiles.inplace_predict(rows).reshape(-1)[:2]
        return value, max(float(high) - float(low), 0.0) / 2 * _TO_QUARTILE


@dataclass(frozen=True)
class LearnedModel:
    """Trained boosters with their card."""

    card: ModelCard
    parts: Mapping[str, Part]

    def save(self, folder: Path) -> None:
        """Write the model's files; `model.json`, which makes them a model, last.

        Raises
        ------
        WriteError
            If a file cannot be written. A model that was there before is then as it was.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            # Entered first, so that it takes its place last.
            card = files.enter_context(replacing(folder / _FILE))
            card.write(documents.as_text(self.card).encode())
            for name, part in self.parts.items():
                for file, raw in zip(
                    _files(folder, name), (part.point, part.quantiles), strict=True
                ):
                    files.enter_context(replacing(file)).write(lzma.compress(raw, preset=9))
            (folder / _FILE).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path = PRETRAINED) -> LearnedModel:
        """Read what :meth:`save` wrote.

        Raises
        ------
        LayoutselError
            If there is no whole model of this version.
        """
        written = documents.load_json(folder / _FILE)
        if isinstance(written, dict):
            written.setdefault("device_features", {})  # older ones know no devices
        card = documents.from_json(ModelCard, written, file=str(folder / _FILE))
        found = (card.format_version, card.features_version)
        expected = (FORMAT_VERSION, features.VERSION)
        is_same = set(card.device_features.values()) <= {features.DEVICE_NAMES}
        if found != expected or card.features != feature_names() or not is_same:
            raise LayoutselError(
                f"{folder}: got a cost model of versions {found} with {len(card.features)} features; "
                f"expected {expected} with {len(feature_names())}. Train it again"
            )
        try:
            parts = {
                name: Part(*(lzma.decompress(file.read_bytes()) for file in _files(folder, name)))
                for name in card.parts
            }
        except (OSError, lzma.LZMAError) as error:
            raise LayoutselError(f"{folder}: the cost model is not whole: {error}") from error
        # XGBoost may end the process where it gets other bytes.
        if hash_of(parts) != card.version:
            raise LayoutselError(
                f"{folder}: the cost model is not whole: got boosters {hash_of(parts)}; expected "
                f"{card.version}, which were trained together. Train it again"
            )
        return cls(card, parts)

    @property
    def version(self) -> str:
        """Short hash of all boosters."""
        return self.card.version


@dataclass(frozen=True)
class Adaptation:
    """What calibration found out about a machine: factors on the predicted time. See :mod:`layoutsel.cost.adapt`."""

    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By unit, coefficients of :func:`layoutsel.cost.adapt.basis`."""


@dataclass(frozen=True)
class LearnedCost:
    """Prices candidates and boundaries of one machine; what nobody trained for (units, precisions) by the roofline."""

    model: LearnedModel
    profile: MachineProfile
    adaptation: Adaptation = field(default_factory=Adaptation)

    @cached_property
    def _roofline(self) -> RooflineCost:
        return RooflineCost.of(self.profile)

    @property
    def knows_machine(self) -> bool:
        """Whether it was trained on, or calibrated to, this machine."""
        cards = self.model.card.parts.values()
        return bool(self.adaptation.weights) or any(
            self.profile.name in card.machines for card in cards
        )

    def subgraph(self, workload: Workload, decision: Decision) -> Cost | Infeasible:
        """Time of one run of the sub-graph, boundaries excluded; less certain where nothing like it was seen."""
        part = self.model.parts.get(decision.unit)
        if part is None or not self._knows(decision):
            return self._roofline.subgraph(workload, decision)
        asked = features.Asked(workload, decision, self.profile)
        row = features.features(asked)
        value, error = part.predict(row, asked.margin)
        known = workload.operator in self.model.card.parts[decision.unit].operators
        doubt = math.hypot(
            error,
            0.0 if known else _UNSEEN_OPERATOR,
            0.0 if self._knows_where(decision.unit) else _UNSEEN_MACHINE,
        )
        return _cost(value + self._correction(decision.unit, row), doubt)

    def _knows(self, decision: Decision) -> bool:
        """Whether its unit's part says anything of `decision`: who has seen one device knows not how others differ."""
        card, unit = self.model.card, decision.unit
        on_device = unit in self.profile.devices
        if decision.precision not in card.parts[unit].forms:
            return False
        if on_device != (unit in card.device_features):
            return False
        several = len(card.parts[unit].machines) > 1
        return not on_device or several or self._knows_where(unit)

    def _knows_where(self, unit: str) -> bool:
        device = self.profile.devices.get(unit)
        if device is None:
            return self.knows_machine
        return device.name in self.model.card.parts[unit].machines

    def _correction(self, unit: str, row: np.ndarray) -> float:
        if unit not in self.adaptation.weights:
            return 0.0
        from layoutsel.cost.adapt import basis

        return float(basis(row) @ np.array(self.adaptation.weights[unit]))

    def transform(self, tensor: TensorSpec, source: str, destination: str) -> Cost:
        """Time of bringing `tensor` from layout `source` into layout `destination`."""
        return self._boundary("transform", tensor, source, destination)

    def crossing(self, tensor: TensorSpec, source: str, destination: str) -> Cost:
        """Time of handing `tensor` from unit `source` to unit `destination`."""
        return self._boundary("crossing", tensor, source, destination)

    def _boundary(self, kind: str, tensor: TensorSpec, source: str, destination: str) -> Cost:
        part = self.model.parts.get(BOUNDARY)
        known = part and {source, destination} <= set(self.model.card.parts[BOUNDARY].forms)
        if part is None or source == destination or not known:
            return getattr(self._roofline, kind)(tensor, source, destination)
        asked = boundary_features.AskedBoundary(kind, source, destination, tensor, self.profile)
        return _cost(*part.predict(boundary_features.features(asked), asked.margin))


def _cost(log_us: float, error: float) -> Cost:
    us = math.exp(log_us)
    return Cost(us=us, spread_us=us * math.expm1(error), source="learned")


def hash_of(parts: Mapping[str, Part]) -> str:
    """Short hash of all boosters."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(parts[name].point + parts[name].quantiles)
    return digest.hexdigest()[:12]


def feature_names() -> tuple[str, ...]:
    """Names of the sub-graphs' features, then of the boundaries'."""
    return (*features.NAMES, *boundary_features.NAMES)


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    """Of a part's two boosters, in XGBoost's binary JSON."""
    return folder / f"{name}.ubj.xz", folder / f"{name}.quantiles.ubj.xz"


def _booster(raw: bytes) -> Any:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(raw))
    return booster
