"""Settings and reports of a search for a network on two devices, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.times import OffloadTimes
from layoutsel.search.offload.transmitted import FLOAT32, PRECISIONS
from layoutsel.search.space import Space
from layoutsel.search.trained import PartWeights
from tvm_passes.errors import LayoutselError

SELECTORS = ("operations", "resources", "channels", "precision", "position", "link")
"""Kinds of selectors."""


@dataclass(frozen=True, kw_only=True)
class OffloadRecipe:
    """Settings of the training."""

    warm_epochs: int = 8
    """Number of passes that train weights alone, with random selectors."""
    search_epochs: int = 10
    """Number of passes with the first weight of the time."""
    sweep_epochs: int = 4
    """Number of passes with each further weight, which go on from the one before."""
    time_weights: tuple[float, ...] = (0.005, 0.01, 0.03, 0.1, 0.3, 1.0)
    """Weights of the logarithm of the expected time against the loss; ascending."""
    retrain_epochs: int = 60
    """Number of passes with each network that was found, and with their teacher."""
    drawn_networks: int = 3
    """Number of networks that are drawn after each phase, besides the most probable one. Mixtures
    of operations may favour some that are weak alone, which single networks show."""
    draw_temperature: float = 3.0
    """Operations of drawn networks have this root of their probabilities."""
    trial_epochs: int = 8
    """Number of passes with each of these networks, to choose drawn ones for further training."""
    teacher_weight: float = 0.7
    """Weight of the teacher's answers in the loss of each found network, and one minus that of the
    labels; 0 for none. The teacher is the hand-made network on one device (arXiv 1503.02531)."""
    teacher_temperature: float = 4.0
    """Divisor of both networks' logits before the teacher's answers are compared."""
    rate: float = 5e-3
    """Largest learning rate of weights."""
    weight_decay: float = 0.02
    """Decay of the weights, relative to the learning rate."""
    selector_rate: float = 0.1
    """Learning rate of selectors."""
    dual_rate: float = 0.2
    """Step of the multipliers of limits, for a value of e times the limit."""
    batch: int = 128
    """Number of samples of a step."""
    temperatures: tuple[float, float] = (5.0, 0.5)
    """Temperature of samples at the beginning of the search, and at its end and in the sweep."""

    def __post_init__(self) -> None:
        if not self.time_weights or min(self.time_weights) < 0:
            raise LayoutselError("weights of the time: expected one or more, each 0 or more")
        if not 0 <= self.teacher_weight <= 1:
            raise LayoutselError(f"teacher_weight {self.teacher_weight}: expected 0 to 1")
        if self.teacher_temperature <= 0:
            raise LayoutselError(
                f"teacher_temperature {self.teacher_temperature}: expected more than 0"
            )
        for name in ("drawn_networks", "draw_temperature"):
            if getattr(self, name) < 0:
                raise LayoutselError(f"{name} {getattr(self, name)}: expected 0 or more")
        for name in (one.name for one in fields(self) if one.name.endswith("_epochs")):
            if getattr(self, name) < 1:
                raise LayoutselError(f"{name} {getattr(self, name)}: expected 1 or more")

    @property
    def phases(self) -> tuple[tuple[str, int, float], ...]:
        """Name, number of passes and weight of the time of each phase."""
        first, *others = self.time_weights
        return (
            ("warm", self.warm_epochs, 0.0),
            ("search", self.search_epochs, first),
            *((f"sweep {weight:g}", self.sweep_epochs, weight) for weight in others),
        )


@dataclass(frozen=True, kw_only=True)
class OffloadLimits:
    """Hard limits; None for none."""

    us: float | None = None
    """Most time of a request, microseconds."""
    bytes: float | None = None
    """Most bytes that are sent to the second device."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SupernetTask:
    """Training of a supernet with its selectors."""

    space: Space
    """Search space."""
    times: OffloadTimes
    """Prices."""
    recipe: OffloadRecipe
    """Settings."""
    checkpoint: str
    """File of the state after each pass; an interrupted training goes on from it."""
    fingerprint: str
    """Text that differs if anything differs that the training depends on."""
    limits: OffloadLimits = field(default_factory=OffloadLimits)
    """Limits of the time and bytes."""
    precisions: tuple[str, ...] = (FLOAT32,)
    """Precisions of sent tensors to choose from."""
    frozen: tuple[str, ...] = ()
    """Kinds of selectors that keep their first values."""
    seed: int = 0
    """Seed of the data's parts, the weights, samples and the order of data."""
    threads: int = 1
    """Number of threads."""

    def __post_init__(self) -> None:
        check_names("precision", self.precisions, tuple(PRECISIONS))
        check_names("selector", self.frozen, SELECTORS)


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrainTask:
    """Training of one sliced network."""

    space: Space
    """Search space."""
    choice: OffloadChoice
    """Network, placement and sent channels."""
    checkpoint: str | None
    """State of the supernet whose weights are inherited; None to begin with random ones."""
    teacher: str | None = None
    """File of a trained network of the space whose answers are learned; None for labels alone."""
    recipe: OffloadRecipe
    """Settings."""
    seed: int = 0
    """Seed of the data's parts, of random weights and the order of data."""
    threads: int = 1
    """Number of threads."""
    result: str | None = None
    """File of the trained network; if it exists, nothing is trained. None to keep none."""
    by_magnitude: bool = False
    """True to send as many channels as the choice, those with the largest weights in the state."""
    phase: str = "retrain"
    """Name of the training in its reports."""
    input_levels: int | None = None
    """Number of values to which inputs are rounded, as if compressed; None for no rounding."""


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """One pass over the training data."""

    phase: str
    """``warm``, ``search``, ``sweep`` with its weight, ``teacher``, ``trial`` or
    ``retrain``."""
    epoch: int
    """Number of passes of this phase so far."""
    epochs: int
    """Number of passes of this phase."""
    loss: float
    """Mean loss on the training data."""
    seconds: float
    """Wall time, seconds."""
    cpu_s: float
    """Processor time, seconds."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Validation loss, temperature, expected time and bytes, multipliers; only of selectors."""
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Probability that each channel is sent, by tensor; only of selectors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectorState:
    """Probabilities of the selectors at the end of a phase."""

    phase: str
    """Name of the phase."""
    time_weight: float
    """Weight of the expected time."""
    operations: tuple[np.ndarray, ...]
    """Probability of each operation by cell, (pairs, operations)."""
    resources: tuple[np.ndarray, ...]
    """Probability of the first device by cell, (pairs, operations), if the cell transmits."""
    channels: Mapping[str, np.ndarray]
    """Probability that each channel is sent, by tensor, (channels,)."""
    precision: np.ndarray
    """Probability of each precision, (precisions,)."""
    position: np.ndarray
    """Probability of each cell as the transmission cell, (cells,)."""
    link: np.ndarray = field(default_factory=lambda: np.ones(1))
    """Probability of each link, (links,)."""
    expected_us: float
    """Expected time, microseconds."""
    expected_bytes: float
    """Expected number of sent bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrainedNetwork:
    """A sliced network whose training has ended."""

    choice: OffloadChoice
    """Network, placement and channels."""
    weights: PartWeights
    """Weights by part, in the order in which its ONNX nodes read them."""
    steps: Mapping[str, float]
    """Step of unsigned bytes by sent tensor."""
    accuracies: Mapping[str, float]
    """Accuracy by part of the data."""


def check_names(kind: str, got: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Reject names that are not in a list; raises :class:`LayoutselError`."""
    for name in got:
        if name not in expected:
            raise LayoutselError(f"{kind} {name!r}: expected one of {', '.join(expected)}")
