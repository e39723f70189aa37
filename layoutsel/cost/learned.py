"""A cost model learned from logs: gradient-boosted trees on the roofline, with an uncertainty.

For each compute unit, one booster predicts ``log(time) - log(roofline)``, and another predicts two
quantiles of the first one's error on unseen workloads. For kernels on tiles, a sum of terms with
learned rates replaces the roofline; see :mod:`layoutsel.cost.tiles`. The part for boundaries has
two boosters as well. Chen, Guestrin, "XGBoost" (KDD 2016).
"""

from __future__ import annotations

import hashlib
import lzma
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from layoutsel import documents
from layoutsel.core.files import replacing
from layoutsel.core.workload import Cost, Estimate, Infeasible
from layoutsel.cost import boundary_features, features, tiles
from layoutsel.cost.boosters import QUARTILE, BoosterPair
from layoutsel.cost.conditions import Conditions
from layoutsel.cost.corrections import NOISE, Adaptation, Traits
from layoutsel.cost.familiar import Familiar
from layoutsel.cost.model import BoundaryPart, CostModel, Question, under
from layoutsel.cost.model_card import RENEW, ModelCard
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import MachineProfile
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.devices import DeviceId
from tvm_passes.errors import LayoutselError

PRETRAINED = Path(__file__).parent / "pretrained"
"""Folder of the model that ships with the package."""
BOUNDARY = "boundary"
"""Name of the part for boundaries; the other parts are named by their unit."""
_FILE = "model.json"


@dataclass(frozen=True)
class Boosters(BoosterPair):
    """The two boosters of a part: of the logarithm of microseconds, and of its error."""

    rates: tuple[float, ...] = ()
    """Rates of the terms of kernels on tiles; empty if the roofline is the estimate."""

    def predict(self, rows: np.ndarray, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the time of each row; `margins` are the logarithms of its roofline."""
        return super().predict(rows, tiles.margins(rows, margins, self.rates))


@dataclass(frozen=True)
class LearnedModel:
    """Trained boosters with their description."""

    card: ModelCard
    """Description of the model."""
    parts: Mapping[str, Boosters]
    """Boosters by unit, and under :data:`BOUNDARY` those of boundaries."""

    def save(self, folder: Path) -> None:
        """Write the files of the model; ``model.json`` comes last, as none is valid without it.

        Raises
        ------
        WriteError
            If a file cannot be written. An earlier model then stays unchanged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            # Entered first, so that it is replaced last.
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
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        LayoutselError
            If the folder has no complete model of this version.
        """
        card = _read_card(folder / _FILE)
        try:
            parts = {
                name: Boosters(point=point, quantiles=quantiles, rates=part.rates)
                for name, part in card.parts.items()
                for point, quantiles in [[_decompressed(file) for file in _files(folder, name)]]
            }
        except (OSError, lzma.LZMAError) as error:
            raise LayoutselError(f"{folder}: the cost model is not whole: {error}") from error
        # XGBoost may end the process if it gets damaged bytes.
        if hash_of(parts) != card.version:
            raise LayoutselError(
                f"{folder}: the cost model is not whole: got boosters {hash_of(parts)}; expected "
                f"{card.version}, which were trained together. {RENEW}"
            )
        return cls(card, parts)

    @property
    def version(self) -> str:
        """Short hash of all boosters."""
        return self.card.version


@dataclass(frozen=True)
class LearnedCost(CostModel):
    """Cost model that prices candidates and boundaries of one machine by trained boosters.

    The roofline prices units and precisions without training data.
    """

    model: LearnedModel
    """Trained boosters."""
    profile: MachineProfile
    """Machine to predict for."""
    adaptation: Adaptation | None = None
    """Correction for the machine, from calibration; None without one."""

    @cached_property
    def _roofline(self) -> RooflineCost:
        return RooflineCost.of(self.profile)

    @property
    def conditions(self) -> Conditions:
        """State of the machine that predictions hold for."""
        return self._roofline.conditions

    @property
    def knows_machine(self) -> bool:
        """True if the model was trained on, or calibrated to, this machine."""
        cards = self.model.card.parts.values()
        return self.adaptation is not None or any(
            self.profile.name in card.machines for card in cards
        )

    def subgraphs(self, questions: Sequence[Question]) -> list[Cost | Infeasible]:
        """Predict the cost of one run of each sub-graph; unfamiliar parts widen the uncertainty.

        A unit's boosters are called once for all questions of one device.
        """
        answers: dict[int, Cost | Infeasible] = {}
        for where, numbers in _grouped(questions, self._placed_unit_of).items():
            asked = [questions[number] for number in numbers]
            priced = self._predicted(where, asked) if where else self._roofline.subgraphs(asked)
            answers.update(zip(numbers, priced, strict=True))
        return [answers[number] for number in range(len(questions))]

    def _placed_unit_of(self, question: Question) -> str:
        """Return the placed unit whose boosters answer; empty if the roofline does."""
        decision = question.decision
        is_known = decision.unit in self.model.parts and self._knows(decision)
        return decision.placed_unit if is_known else ""

    def _predicted(self, where: str, questions: Sequence[Question]) -> list[Cost]:
        unit, device = parse_placed_unit(where)
        asked = [features.PricingQuestion(q.workload, q.decision, self.profile) for q in questions]
        rows, margins = features.feature_table(asked)
        values, errors = self._corrected(unit, rows, *self.model.parts[unit].predict(rows, margins))
        familiar = self._familiar(unit, device)
        costs = []
        for question, value, error in zip(questions, values, errors, strict=True):
            doubt = math.hypot(error, *familiar.doubts(question.workload, question.decision))
            costs.append(question.workload.cost(_time(value, doubt), question.decision))
        return under(costs, questions, self.conditions)

    def _familiar(self, unit: str, device: DeviceId) -> Familiar:
        card, on_device = self.model.card.parts[unit], unit in self.model.card.device_features
        return Familiar.of(card, machine=self._knows_where(unit, device), device=on_device)

    def _knows(self, decision: Decision) -> bool:
        """True if the unit's part can predict `decision`.

        A model trained on one device cannot extrapolate to others.
        """
        card, unit = self.model.card, decision.unit
        on_device = self.profile.device(decision.device) is not None
        if decision.precision not in card.parts[unit].forms:
            return False
        if on_device != (unit in card.device_features):
            return False
        several = len(card.parts[unit].machines) > 1
        return not on_device or several or self._knows_where(unit, decision.device)

    def _knows_where(self, unit: str, device: DeviceId) -> bool:
        peaks = self.profile.device(device)
        if peaks is None:
            return self.knows_machine
        return peaks.name in self.model.card.parts[unit].machines

    def _corrected(
        self, unit: str, rows: np.ndarray, values: np.ndarray, errors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Apply the calibration to logarithms of time and half the interquartile range of error.

        The errors of the boosters hold for the machines that they were trained on.
        """
        if self.adaptation is None or not self.adaptation.errors:
            return values, errors
        expected, deviations = self.adaptation.correct(Traits.of([unit] * len(rows), rows, values))
        if self.profile.name not in self.model.card.parts[unit].machines:
            errors = np.maximum(errors, QUARTILE * NOISE)
        return values + expected, np.hypot(errors, QUARTILE * deviations)

    def shared_spread_us(self, questions: Sequence[Question]) -> float:
        """Uncertainty of the total time of candidates, as far as their errors go together.

        On a machine that the model was trained on, errors count as independent.

        Returns
        -------
        float
            Half the interquartile range of the sum of the times, microseconds.
        """
        adaptation = self.adaptation or Adaptation()
        if self.knows_machine and not adaptation.errors:
            return 0.0
        known = [q for q in questions if self._placed_unit_of(q)]
        if not known:
            return 0.0
        asked = [features.PricingQuestion(q.workload, q.decision, self.profile) for q in known]
        rows = np.stack([features.features(one)[: len(features.NAMES)] for one in asked])
        us = np.array([cost.us for cost in self.subgraphs(known) if isinstance(cost, Cost)])
        traits = Traits.of([q.decision.unit for q in known], rows, np.log(us))
        return QUARTILE * adaptation.shared_deviation(traits, us)

    def steps(self, steps: Sequence[BoundaryPart]) -> list[Cost]:
        """Predict the cost of each step of a boundary, with one call of the boosters."""
        answers = self._roofline.steps(steps)
        numbers = [number for number, step in enumerate(steps) if self._knows_step(step)]
        if not numbers:
            return answers
        asked = [
            boundary_features.AskedBoundary(
                steps[n].kind, steps[n].source, steps[n].destination, steps[n].tensor, self.profile
            )
            for n in numbers
        ]
        predicted = self.model.parts[BOUNDARY].predict(*boundary_features.feature_table(asked))
        known = [steps[number] for number in numbers]
        costs = [
            step.tensor.cost(_time(value, error))
            for step, value, error in zip(known, *predicted, strict=True)
        ]
        for number, cost in zip(numbers, under(costs, known, self.conditions), strict=True):
            answers[number] = cost
        return answers

    def _knows_step(self, step: BoundaryPart) -> bool:
        card = self.model.card.parts.get(BOUNDARY)
        return card is not None and {step.source, step.destination} <= set(card.forms)


def _grouped(
    questions: Sequence[Question], group: Callable[[Question], str]
) -> dict[str, list[int]]:
    """Map each group to the indices of its questions."""
    numbers: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        numbers.setdefault(group(question), []).append(number)
    return numbers


def _time(log_us: float, error: float) -> Estimate:
    us = math.exp(log_us)
    return Estimate(us, us * math.expm1(error), "learned")


def hash_of(parts: Mapping[str, Boosters]) -> str:
    """Compute a short hash of all boosters and rates."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        part = parts[name]
        digest.update(part.point + part.quantiles + repr(part.rates).encode())
    return digest.hexdigest()[:12]


def feature_names() -> tuple[str, ...]:
    """List the names of the features of sub-graphs, then of those of boundaries."""
    return (*features.NAMES, *boundary_features.NAMES)


def _read_card(file: Path) -> ModelCard:
    """Read the card of a model with the features of this layoutsel."""
    card = ModelCard.read(documents.load_json(file), file=str(file))
    is_same = set(card.device_features.values()) <= {features.DEVICE_NAMES}
    if card.features != feature_names() or not is_same:
        raise LayoutselError(
            f"{file}: got a cost model of {len(card.features)} features; expected the "
            f"{len(feature_names())} features of this layoutsel. {RENEW}"
        )
    return card


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the files of a part's two boosters, in XGBoost's binary JSON."""
    return folder / f"{name}.ubj.xz", folder / f"{name}.quantiles.ubj.xz"


def _decompressed(file: Path) -> bytes:
    return lzma.decompress(file.read_bytes())
