"""Exits on submodules of any PyTorch module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from layoutsel.exits.training.heads import head
from tvm_passes.errors import LayoutselError


class MultiExit(nn.Module):
    """A module with exits on some of its submodules; :func:`attach` makes it."""

    def __init__(
        self, backbone: nn.Module, after: Sequence[str], heads: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.after = tuple(after)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of each early exit in order, then the module's own output."""
        taps, final = outputs_after(self.backbone, self.after, x)
        return (*(head(tap) for head, tap in zip(self.heads, taps, strict=True)), final)


def attach(
    module: nn.Module,
    after: Sequence[str],
    example: torch.Tensor,
    *,
    hidden: int | None = None,
) -> MultiExit:
    """Attach an exit to the output of each submodule that `after` names.

    Parameters
    ----------
    module
        Classifier whose output is the logits (N, classes).
    after
        Names of submodules, as ``module.named_modules()`` has them, in the order of the exits. The
        output of each is a tensor (N, channels, *axes) with at most three axes.
    example
        An input of the module, (N, ...).
    hidden
        Number of channels of a convolution that begins each head; no convolution if None.

    Raises
    ------
    LayoutselError
        If a submodule is missing, repeated, or has no such output.
    """
    was_training = module.training
    module.eval()
    with torch.no_grad():
        taps, final = outputs_after(module, after, example)
    module.train(was_training)
    if final.ndim != 2:
        raise LayoutselError(
            f"the module's output has shape {tuple(final.shape)}; expected logits (N, classes)"
        )
    heads = [
        _head_on(name, tap, final.shape[1], hidden) for name, tap in zip(after, taps, strict=True)
    ]
    return MultiExit(module, after, heads).to(example.device)


def outputs_after(
    module: nn.Module, after: Sequence[str], x: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Outputs of the submodules that `after` names, and of the module, on an input.

    Raises
    ------
    LayoutselError
        If a submodule is missing or repeated, does not run exactly once, or returns no tensor.
    """
    known = dict(module.named_modules())
    for name in after:
        if not name or name not in known:
            names = ", ".join(one for one in known if one)
            raise LayoutselError(f"there is no submodule {name!r}; expected one of {names}")
        if list(after).count(name) > 1:
            raise LayoutselError(f"submodule {name!r} is named twice; expected different ones")
    seen: dict[str, list[Any]] = {name: [] for name in after}
    hooks = [
        # The default binds each name now; a hook that returns a value would replace the output.
        known[name].register_forward_hook(lambda _m, _i, out, name=name: seen[name].append(out))
        for name in after
    ]
    try:
        final = module(x)
    finally:
        for hook in hooks:
            hook.remove()
    for name, outputs in seen.items():
        if len(outputs) != 1 or not isinstance(outputs[0], torch.Tensor):
            got = f"{len(outputs)} outputs" if len(outputs) != 1 else type(outputs[0]).__name__
            raise LayoutselError(
                f"submodule {name!r} gave {got} in one run; expected one tensor. Choose a "
                "submodule that runs once"
            )
    return [outputs[0] for outputs in seen.values()], final


def _head_on(name: str, tap: torch.Tensor, classes: int, hidden: int | None) -> nn.Module:
    axes = tuple(tap.shape[2:])
    if not 1 <= len(axes) <= 3:
        raise LayoutselError(
            f"submodule {name!r} has an output of shape {tuple(tap.shape)}; expected (N, channels, "
            "axes) with one to three axes"
        )
    return head(tap.shape[1], axes, classes, hidden)
