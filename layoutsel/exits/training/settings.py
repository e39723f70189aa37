"""Shapes of networks and settings of their training, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvm_passes.errors import LayoutselError


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Shape of a residual network and the places of its exits."""

    kernel: tuple[int, int]
    """Height and width of the kernels of all convolutions; odd numbers."""
    stem: int
    """Number of channels of the first convolution."""
    blocks: tuple[tuple[int, int], ...]
    """Number of channels and stride of each residual block."""
    exits: tuple[int, ...]
    """Number of blocks before each early exit, ascending."""
    hidden: int | None = None
    """Number of channels of the convolution that begins each early exit; None for none."""

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the submodules of :class:`ResidualNetwork` after which exits are attached."""
        return tuple(f"blocks.{count - 1}" for count in self.exits)

    def cut(self, index: int) -> NetworkShape:
        """Shape of the network that ends at early exit `index` and has no other exit."""
        return replace(self, blocks=self.blocks[: self.exits[index]], exits=())

    def without_exits(self) -> NetworkShape:
        """Shape of the network with the final exit alone."""
        return replace(self, exits=())


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the training."""

    backbone_epochs: int
    """Number of passes over the data with the final exit's loss alone."""
    joint_epochs: int
    """Number of passes with the losses of all exits."""
    rate: float = 3e-3
    """Largest learning rate; it rises from zero and falls to zero in each phase."""
    weight_decay: float = 0.02
    """Decay of the weights, relative to the learning rate."""
    batch: int = 64
    """Number of samples of a step."""
    early_weight: float = 1.0
    """Weight of the loss of each early exit; that of the final one is 1."""
    shift: tuple[int, int] = (0, 0)
    """Most points by which an input is moved along its height and width."""

    @property
    def epochs(self) -> int:
        """Number of passes over the data."""
        return self.backbone_epochs + self.joint_epochs


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One pass over the training data."""

    network: str
    """Name of the network."""
    phase: str
    """``backbone`` or ``joint``."""
    epoch: int
    """Number of passes so far."""
    epochs: int
    """Number of passes in all."""
    loss: float
    """Mean weighted loss over the samples."""
    seconds: float
    """Wall time, seconds."""
    cpu_s: float
    """Processor time, seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetwork:
    """A network whose training has ended."""

    name: str
    """Name of its file without the suffix."""
    model: bytes
    """ONNX model without a specification."""
    accuracies: Mapping[str, tuple[float, ...]]
    """Accuracy of each exit, by name of a part of the data."""
    seconds: float
    """Wall time of the training, seconds."""
    cpu_s: float
    """Processor time of the training, seconds."""


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """A network to train."""

    data: str
    """Entry of :data:`layoutsel.exits.training.data.DATA_SETS`."""
    size: str = "demo"
    """One of :data:`SIZES`."""
    seed: int = 0
    """Seed of the data's parts, the weights and the order of samples."""
    threads: int = 1
    """Number of threads."""
    hidden: int | None = None
    """Number of channels of a convolution that begins each early exit; None for none."""
    static: bool = False
    """True to train a network that ends at each of the exits alone as well."""

    def __post_init__(self) -> None:
        if (self.data, self.size) not in SETTINGS:
            raise LayoutselError(
                f"data set {self.data!r} and size {self.size!r}: expected one of "
                f"{', '.join(' '.join(key) for key in SETTINGS)}"
            )
        if self.threads < 1:
            raise LayoutselError(f"{self.threads} threads: expected 1 or more")
        if self.hidden is not None and self.hidden < 1:
            raise LayoutselError(f"{self.hidden} hidden channels: expected 1 or more")

    @property
    def shape(self) -> NetworkShape:
        """Shape of the network."""
        return replace(SETTINGS[self.data, self.size].shape, hidden=self.hidden)

    @property
    def recipe(self) -> Recipe:
        """Settings of its training."""
        return SETTINGS[self.data, self.size].recipe


INPUT = "x"
"""Name of the input of exported networks, and of the array of inputs in data files."""
IMAGE, SIGNAL = (3, 3), (1, 3)
"""Kernels for images, and for signals of height 1."""
_SHIFT = (2, 2)
"""Most points by which images are moved along each axis."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A network and its training."""

    shape: NetworkShape
    """Shape of the network."""
    recipe: Recipe
    """Settings of the training."""


SETTINGS: Mapping[tuple[str, str], Settings] = {
    ("mnist5k", "tiny"): Settings(
        shape=NetworkShape(kernel=IMAGE, stem=8, blocks=((8, 2), (16, 2), (24, 1)), exits=(1, 2)),
        recipe=Recipe(backbone_epochs=8, joint_epochs=10, rate=5e-3, shift=_SHIFT),
    ),
    ("mnist5k", "demo"): Settings(
        shape=NetworkShape(
            kernel=IMAGE,
            stem=16,
            blocks=((32, 2), (48, 1), (64, 1), (96, 2), (96, 1)),
            exits=(1, 2, 3),
        ),
        recipe=Recipe(backbone_epochs=5, joint_epochs=5, shift=_SHIFT),
    ),
    ("mnist5k", "large"): Settings(
        shape=NetworkShape(
            kernel=IMAGE,
            stem=16,
            blocks=((32, 2), (48, 1), (96, 1), (96, 1), (96, 1), (192, 2), (192, 1)),
            exits=(1, 2, 3),
        ),
        recipe=Recipe(backbone_epochs=6, joint_epochs=6, shift=_SHIFT),
    ),
    ("mnist1d", "tiny"): Settings(
        shape=NetworkShape(
            kernel=SIGNAL, stem=12, blocks=((12, 1), (20, 2), (32, 1)), exits=(1, 2)
        ),
        recipe=Recipe(backbone_epochs=6, joint_epochs=9),
    ),
    ("mnist1d", "demo"): Settings(
        shape=NetworkShape(
            kernel=SIGNAL,
            stem=16,
            blocks=((24, 1), (32, 2), (64, 1), (128, 1), (160, 1)),
            exits=(1, 2, 3),
        ),
        recipe=Recipe(backbone_epochs=6, joint_epochs=6),
    ),
    ("mnist1d", "large"): Settings(
        shape=NetworkShape(
            kernel=SIGNAL,
            stem=24,
            blocks=((32, 1), (48, 1), (64, 2), (128, 1), (256, 1), (320, 1), (320, 1)),
            exits=(1, 2, 3, 4),
        ),
        recipe=Recipe(backbone_epochs=6, joint_epochs=6),
    ),
}
"""Networks by data set and size."""
SIZES = tuple(dict.fromkeys(size for _, size in SETTINGS))
"""Sizes of networks, of which each data set has one."""
