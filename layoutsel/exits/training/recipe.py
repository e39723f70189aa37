"""Mixed training: the backbone first, then backbone and exits together.

Piotr Kubaty et al., "How to Train Your Multi-Exit Model?" (arXiv 2407.14320).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from layoutsel.exits.training.attach import MultiExit
from layoutsel.exits.training.settings import EpochReport, Recipe


def mixed_training(
    model: MultiExit,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    recipe: Recipe,
    *,
    name: str = "net",
) -> Iterator[EpochReport]:
    """Train `model` in place, and report each pass.

    Parameters
    ----------
    model
        Network with its exits.
    inputs
        Training data, (N, ...).
    labels
        Classes, (N,), int64.
    recipe
        Settings.
    name
        Name of the network, for the reports.
    """
    early = [recipe.early_weight] * len(model.heads)
    done = 0
    for phase, epochs, trained, weights in (
        ("backbone", recipe.backbone_epochs, model.backbone, [1.0]),
        ("joint", recipe.joint_epochs, model, [*early, 1.0]),
    ):
        if not epochs:
            continue
        steps = epochs * -(-len(inputs) // recipe.batch)
        optimizer = torch.optim.AdamW(
            trained.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=recipe.rate, total_steps=steps
        )
        for _ in range(epochs):
            start, cpu = time.perf_counter(), time.process_time()
            total = 0.0
            trained.train()
            for chosen in torch.randperm(len(inputs)).split(recipe.batch):
                outputs = trained(shifted(inputs[chosen], recipe.shift))
                loss = _loss(outputs, labels[chosen], weights)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(chosen)
            done += 1
            yield EpochReport(
                network=name,
                phase=phase,
                epoch=done,
                epochs=recipe.epochs,
                loss=total / len(inputs),
                seconds=time.perf_counter() - start,
                cpu_s=time.process_time() - cpu,
            )


def _loss(
    outputs: torch.Tensor | tuple[torch.Tensor, ...], labels: torch.Tensor, weights: list[float]
) -> torch.Tensor:
    logits = outputs if isinstance(outputs, tuple) else (outputs,)
    losses = [functional.cross_entropy(one, labels) for one in logits]
    return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum()


def shifted(inputs: torch.Tensor, most: tuple[int, int]) -> torch.Tensor:
    """Move each input (channels, height, width) by up to `most` points; edges repeat."""
    down, right = most
    if not (down or right):
        return inputs
    height, width = inputs.shape[-2:]
    padded = functional.pad(inputs, (right, right, down, down), mode="replicate")
    rows = torch.randint(0, 2 * down + 1, (len(inputs),))
    columns = torch.randint(0, 2 * right + 1, (len(inputs),))
    return torch.stack(
        [
            one[..., row : row + height, column : column + width]
            for one, row, column in zip(padded, rows.tolist(), columns.tolist(), strict=True)
        ]
    )


def logits_of(model: nn.Module, inputs: torch.Tensor, batch: int = 256) -> list[torch.Tensor]:
    """Logits of each exit, (N, classes)."""
    model.eval()
    with torch.no_grad():
        parts = [_as_tuple(model(chunk)) for chunk in inputs.split(batch)]
    return [torch.cat(one) for one in zip(*parts, strict=True)]


def _as_tuple(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
