"""Training of a supernet: weights on training data, all selectors on validation data, in turn.

Gradients of selectors are of first order (arXiv 1806.09055, section 2.3). Limits of the time and of
the sent bytes have multipliers that rise while the expected values exceed them: dual ascent on the
augmented Lagrangian (Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods", 3.2).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from layoutsel.exits.training.data import DataParts, LabelledSamples
from layoutsel.exits.training.recipe import shifted
from layoutsel.search.offload.expected_time import ExpectedCost, expected
from layoutsel.search.offload.selectors import Choices, Selectors
from layoutsel.search.offload.settings import SearchReport, SelectorState, SupernetTask
from layoutsel.search.offload.supernet import Supernet
from layoutsel.search.offload.supernet_shape import SupernetShape
from tvm_passes.errors import LayoutselError

IMAGE_SHIFT = (2, 2)
"""Most points by which images of training data are moved along each axis."""
MOST_EXCESS = 0.1
"""Excess over a limit from which its multiplier rises no faster. The way to a limit far below the
first values would else raise it beyond need, and the limit would not be used up afterwards."""
_STIFFNESS = 5.0
"""Weight of squared excesses over limits."""
_LATER_RATE = 0.5
"""Learning rate of the weights while selectors move, relative to that of the warm-up."""


class BilevelTraining:
    """State of a training, saved after each pass.

    Parameters
    ----------
    task
        Settings.
    data
        Parts of the data; the test data is not read.
    """

    def __init__(self, task: SupernetTask, data: DataParts) -> None:
        torch.manual_seed(task.seed)
        self.task, self.recipe = task, task.recipe
        self.shape = SupernetShape.of(task.space)
        self.supernet = Supernet(self.shape)
        self.selectors = Selectors(self.shape, task.precisions, len(task.times.links))
        for kind, parameters in self.selectors.groups().items():
            for one in parameters:
                one.requires_grad_(kind not in task.frozen)
        self.train, self.validation = _tensors(data.train), _tensors(data.tune)
        self.random = torch.Generator().manual_seed(task.seed)
        self.weights_optimizer = torch.optim.AdamW(
            self.supernet.parameters(), lr=self.recipe.rate, weight_decay=self.recipe.weight_decay
        )
        free = [one for one in self.selectors.parameters() if one.requires_grad]
        self.selector_optimizer = torch.optim.Adam(
            free, lr=self.recipe.selector_rate, betas=(0.5, 0.999)
        )
        self.multipliers = torch.zeros(2)
        self.reports: list[SearchReport] = []
        self.states: list[dict[str, Any]] = []

    def run(self) -> Iterator[SearchReport | SelectorState]:
        """Train, and yield a report after each pass and the selectors after each phase.

        Those of a saved state are yielded first.
        """
        self._load()
        done = iter(list(self.reports))
        for index, (phase, epochs, weight) in enumerate(self.recipe.phases):
            for epoch in range(1, epochs + 1):
                report = next(done, None)
                if report is None:
                    report = self._epoch(phase, epoch, epochs, weight)
                    self.reports.append(report)
                    if epoch == epochs and phase != "warm":
                        self.states.append(self._state(phase, weight))
                    self._save()
                yield report
            if phase != "warm":
                yield _as_arrays(self.states[index - 1])

    def _epoch(self, phase: str, epoch: int, epochs: int, weight: float) -> SearchReport:
        start, cpu = time.perf_counter(), time.process_time()
        is_warm = phase == "warm"
        temperature = self._temperature(phase, epoch, epochs)
        self._set_rate(1.0 if is_warm else _LATER_RATE)
        validation = itertools.cycle(self._batches(self.validation[0]))
        total, validation_loss, steps = 0.0, 0.0, 0
        self.supernet.train()
        for chosen in self._batches(self.train[0]):
            with torch.no_grad():
                choices = self.selectors.sample(temperature, self.random)
            moved = shifted(self.train[0][chosen], shift_of(self.train[0]))
            loss = self._loss((moved, self.train[1][chosen]), choices)
            _step(self.weights_optimizer, loss)
            total += loss.item() * len(chosen)
            if not is_warm:
                validation_loss += self.selector_step(next(validation), temperature, weight)
            steps += 1
        values, gates = ({}, {}) if is_warm else self._values(temperature, validation_loss / steps)
        return SearchReport(
            phase=phase,
            epoch=epoch,
            epochs=epochs,
            loss=total / len(self.train[0]),
            seconds=time.perf_counter() - start,
            cpu_s=time.process_time() - cpu,
            values=values,
            gates=gates,
        )

    def selector_step(self, chosen: Tensor, temperature: float, weight: float) -> float:
        """Update all selectors on some validation samples; returns their loss."""
        self.supernet.requires_grad_(False)
        choices = self.selectors.sample(temperature, self.random)
        inputs, labels = self.validation
        loss = self._loss((inputs[chosen], labels[chosen]), choices)
        cost = self._expected()
        excess = self._excess(cost)
        # The logarithm weighs a relative gain the same at every time.
        total = loss + weight * torch.log(cost.us) + self._penalty(excess)
        _step(self.selector_optimizer, total)
        self.selectors.limit()
        with torch.no_grad():
            self.multipliers += self.recipe.dual_rate * excess.detach().clamp(max=MOST_EXCESS)
            self.multipliers.clamp_(min=0.0)
        self.supernet.requires_grad_(True)
        return loss.item()

    def _loss(self, data: tuple[Tensor, Tensor], choices: Choices) -> Tensor:
        inputs, labels = data
        return functional.cross_entropy(self.supernet(inputs, choices), labels)

    def _expected(self) -> ExpectedCost:
        return expected(self.shape, self.task.times, self.selectors.probabilities())

    def _penalty(self, excess: Tensor) -> Tensor:
        """Terms of the limits; their gradients vanish where a limit is kept by far."""
        forces = torch.clamp(self.multipliers + _STIFFNESS * excess, min=0.0)
        return (forces**2 - self.multipliers**2).sum() / (2 * _STIFFNESS)

    def _excess(self, cost: ExpectedCost) -> Tensor:
        """Logarithms of the expected time and bytes over their limits; 0 without a limit."""
        limits = self.task.limits
        pairs = ((cost.us, limits.us), (cost.bytes, limits.bytes))
        return torch.stack(
            [torch.zeros(()) if most is None else torch.log(got / most) for got, most in pairs]
        )

    def _batches(self, inputs: Tensor) -> Iterator[Tensor]:
        order = torch.randperm(len(inputs), generator=self.random)
        return iter(order.split(self.recipe.batch))

    def _temperature(self, phase: str, epoch: int, epochs: int) -> float:
        """Temperature, which falls geometrically during the first search."""
        first, last = self.recipe.temperatures
        if phase == "warm":
            return first
        if phase != "search" or epochs == 1:
            return last
        return float(first * (last / first) ** ((epoch - 1) / (epochs - 1)))

    def _set_rate(self, share: float) -> None:
        for group in self.weights_optimizer.param_groups:
            group["lr"] = share * self.recipe.rate

    def _values(
        self, temperature: float, loss: float
    ) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
        with torch.no_grad():
            cost = self._expected()
            gates = self.selectors.probabilities().channels
        values = {
            "validation_loss": loss,
            "temperature": temperature,
            "expected_us": float(cost.us),
            "expected_bytes": float(cost.bytes),
            "time_multiplier": float(self.multipliers[0]),
            "bytes_multiplier": float(self.multipliers[1]),
        }
        return values, {
            name: tuple(round(one, 3) for one in gate.tolist()) for name, gate in gates.items()
        }

    @torch.no_grad()
    def _state(self, phase: str, weight: float) -> dict[str, Any]:
        chosen, cost = self.selectors.probabilities(), self._expected()
        return {
            "phase": phase,
            "time_weight": weight,
            "operations": chosen.operations,
            "resources": chosen.resources,
            "channels": dict(chosen.channels),
            "precision": chosen.precision,
            "position": chosen.position,
            "link": chosen.link,
            "expected_us": float(cost.us),
            "expected_bytes": float(cost.bytes),
        }

    def _save(self) -> None:
        save_state(
            {
                "fingerprint": self.task.fingerprint,
                "supernet": self.supernet.state_dict(),
                "selectors": self.selectors.state_dict(),
                "weights_optimizer": self.weights_optimizer.state_dict(),
                "selector_optimizer": self.selector_optimizer.state_dict(),
                "multipliers": self.multipliers,
                "random": self.random.get_state(),
                "shifts": torch.get_rng_state(),
                "reports": [asdict(report) for report in self.reports],
                "states": self.states,
            },
            self.task.checkpoint,
        )

    def _load(self) -> None:
        if not Path(self.task.checkpoint).exists():
            return
        saved = read_state(self.task.checkpoint)
        if saved["fingerprint"] != self.task.fingerprint:
            raise LayoutselError(
                f"{self.task.checkpoint}: state of a search with other settings, prices or of "
                "another space; choose another folder, or remove this one"
            )
        for name in ("supernet", "selectors", "weights_optimizer", "selector_optimizer"):
            getattr(self, name).load_state_dict(saved[name])
        self.multipliers.copy_(saved["multipliers"])
        self.random.set_state(saved["random"])
        # Shifts of images are drawn from PyTorch's own generator.
        torch.set_rng_state(saved["shifts"])
        self.reports = [SearchReport(**report) for report in saved["reports"]]
        self.states = saved["states"]


def shift_of(inputs: Tensor) -> tuple[int, int]:
    """Most points by which training inputs (N, channels, height, width) are moved; images alone."""
    return IMAGE_SHIFT if inputs.shape[2] > 1 else (0, 0)


def read_state(file: str) -> dict[str, Any]:
    """Read a saved state; raises :class:`LayoutselError` if it is damaged."""
    try:
        found: dict[str, Any] = torch.load(file, weights_only=True)
    except Exception as error:  # damaged archives and pickles raise errors of many types
        raise LayoutselError(
            f"{file}: cannot be read as the state of a search ({type(error).__name__}); remove it "
            "to begin again"
        ) from error
    return found


def save_state(state: dict[str, Any], file: str) -> None:
    """Save a state of tensors and plain values; readers see the old one or the complete new one."""
    target = Path(file)
    temporary = target.with_name(f"{target.name}.tmp")
    torch.save(state, temporary)
    temporary.replace(target)


def _as_arrays(state: dict[str, Any]) -> SelectorState:
    """Convert the tensors of a saved state of selectors."""
    arrays = {
        "operations": tuple(one.numpy() for one in state["operations"]),
        "resources": tuple(one.numpy() for one in state["resources"]),
        "channels": {name: one.numpy() for name, one in state["channels"].items()},
        "precision": state["precision"].numpy(),
        "position": state["position"].numpy(),
        "link": state["link"].numpy(),
    }
    return SelectorState(**{**state, **arrays})


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _tensors(samples: LabelledSamples) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels)
