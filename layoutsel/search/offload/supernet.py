"""Supernet: every operation of each pair at once, weighted by selectors (PyTorch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layoutsel.search.joint.modules import MODULES, module_of
from layoutsel.search.offload.expected_time import CellFlow, flow_of
from layoutsel.search.offload.selectors import Choices
from layoutsel.search.offload.supernet_shape import SuperCell, SupernetShape
from layoutsel.search.offload.transmitted import BFLOAT16, FLOAT32, PRECISIONS, UINT8
from layoutsel.search.parts import head_signature, stem_signature


class MixedPair(nn.Module):
    """All operations of a pair of nodes."""

    def __init__(self, cell: SuperCell, index: int) -> None:
        super().__init__()
        geometry = cell.geometry(cell.pairs[index])
        self.made = cell.channels
        self.skips = [o for o, skip in enumerate(cell.is_skip) if skip and cell.offered[index][o]]
        self.offered = [
            (o, name)
            for o, name in enumerate(cell.operations)
            if name in MODULES and cell.offered[index][o]
        ]
        self.candidates = nn.ModuleDict({name: MODULES[name](geometry) for _, name in self.offered})

    def forward(self, x: Tensor, weights: Tensor) -> Tensor | None:
        """Weighted sum of the operations' results without skips; None if there is none."""
        made = [weights[o] * self.candidates[name](x, self.made) for o, name in self.offered]
        return torch.stack(made).sum(0) if made else None


class Supernet(nn.Module):
    """Weights of all operations of a search space.

    Parameters
    ----------
    shape
        Shape of the supernet.
    """

    def __init__(self, shape: SupernetShape) -> None:
        super().__init__()
        self.shape = shape
        self.stem = module_of(stem_signature(shape.space))
        self.cells = nn.ModuleList(
            nn.ModuleList(MixedPair(cell, index) for index in range(len(cell.pairs)))
            for cell in shape.cells
        )
        self.head = module_of(head_signature(shape.space, shape.cells[-1].shape))

    def forward(self, x: Tensor, choices: Choices) -> Tensor:
        """Logits (N, classes) of inputs under sampled selectors."""
        choices = choices.placed(choices.position)
        link = _Link(choices)
        x, name = self.stem(x, self.shape.space.stem_channels), "stem"
        arriving = torch.ones(())
        for index, (cell, pairs) in enumerate(zip(self.shape.cells, self.cells, strict=True)):
            chosen, resources = choices.operations[index], choices.resources[index]
            flow = flow_of(cell, chosen, resources, arriving)
            x = self._cell(cell, pairs, x, name, chosen, resources, flow, link)
            arriving, name = flow.nodes[-1], cell.node(cell.cell.nodes)
        logits: Tensor = self.head(link.sent(x, name, arriving), self.shape.space.classes)
        return logits

    def layer(self, part: str, operation: str) -> nn.Module:
        """Module of a part of a network of the space."""
        if part in ("stem", "head"):
            held: nn.Module = getattr(self, part)
            return held
        for cell, pairs in zip(self.shape.cells, self.cells, strict=True):
            for pair, mixed in zip(cell.pairs, pairs, strict=True):
                if cell.output(pair) == part:
                    found: nn.Module = mixed.candidates[operation]
                    return found
        raise AssertionError(f"no part {part}")

    def _cell(
        self,
        cell: SuperCell,
        pairs: nn.ModuleList,
        x: Tensor,
        name: str,
        chosen: Tensor,
        resources: Tensor,
        flow: CellFlow,
        link: _Link,
    ) -> Tensor:
        nodes, names = [x], [name]
        is_real = ~(torch.tensor(cell.is_none) | torch.tensor(cell.is_skip))
        for j in range(1, cell.cell.nodes + 1):
            total: Tensor | None = None
            for i in range(j):
                p = cell.pairs.index((i, j))
                weights = chosen[p]
                moved = (weights * (1 - resources[p]))[is_real].sum() / (
                    weights[is_real].sum() + 1e-6
                )
                made = pairs[p](link.sent(nodes[i], names[i], flow.nodes[i] * moved), weights)
                if made is not None:
                    local = (weights * flow.operations[p])[is_real].sum() / (
                        weights[is_real].sum() + 1e-6
                    )
                    made = link.sent(made, cell.output((i, j)), local * (1 - flow.nodes[j]))
                    total = made if total is None else total + made
                for o in pairs[p].skips:
                    share = flow.nodes[i] * (1 - flow.nodes[j])
                    skipped = weights[o] * link.sent(nodes[i], names[i], share)
                    total = skipped if total is None else total + skipped
            assert total is not None
            nodes.append(total)
            names.append(cell.node(j))
        return nodes[-1]


class _Link:
    """Effect of sending on a tensor: its channels' gates, and the precision."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        # A precision that is not offered has exactly no weight.
        self.is_rounded = bool((choices.precision[1:] > 0).any())

    def sent(self, x: Tensor, name: str, share: Tensor) -> Tensor:
        """Mix a tensor with the one that arrives, by the share that is sent."""
        gates = self.choices.channels[name][None, :, None, None]
        if not self.is_rounded:
            return x * (1 - share * (1 - gates))
        return x * (1 - share) + self._rounded(x) * gates * share

    def _rounded(self, x: Tensor) -> Tensor:
        """Round with the selected precisions; gradients pass as if nothing was rounded."""
        weights = dict(zip(PRECISIONS, self.choices.precision.unbind(), strict=True))
        mixed = weights[FLOAT32] * x
        for precision in (BFLOAT16, UINT8):
            mixed = mixed + weights[precision] * (x + (rounded(x, precision) - x).detach())
        return mixed


def rounded(x: Tensor, precision: str, scale: Tensor | None = None) -> Tensor:
    """Values of a tensor after sending; unsigned bytes have `scale`, or fit the largest value."""
    if precision == BFLOAT16:
        return x.to(torch.bfloat16).to(x.dtype)
    if precision == UINT8:
        step = x.amax().clamp_min(1e-6) / 255 if scale is None else scale
        return torch.clamp(torch.round(x / step), 0, 255) * step
    return x
