"""Export of one network, with the first of PyTorch's exporters that can."""

from __future__ import annotations

import signal
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from networks import NETWORKS
from strip import strip

OPSETS = {"legacy": 17, "dynamo": 18}
"""Version of ONNX's operators that each exporter writes."""
EXPORTER = "exporter"
"""Key of the exporter's name in the model's properties."""
TIME_LIMIT_S = 600
"""Time limit of one exporter."""


class _Tensors(torch.nn.Module):
    """A module whose inputs go by position, and whose results are tensors."""

    def __init__(self, module: torch.nn.Module, keywords: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.keywords = module, keywords

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors of the module's result."""
        if not self.keywords:
            return tuple(_flat(self.module(*values)))
        return tuple(_flat(self.module(**dict(zip(self.keywords, values, strict=True)))))


def _flat(value: Any) -> list[torch.Tensor]:
    """Tensors within a result, in order; caches of keys and values are none."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = [part for key, part in value.items() if key != "past_key_values"]
    parts = value if isinstance(value, list | tuple) else []
    return [tensor for part in parts for tensor in _flat(part)]


def _legacy(module: torch.nn.Module, values: tuple[Any, ...], **options: Any) -> None:
    torch.onnx.export(module, values, dynamo=False, **options)


def _dynamo(module: torch.nn.Module, values: tuple[Any, ...], **options: Any) -> None:
    torch.onnx.export(module, values, dynamo=True, verbose=False, **options)


EXPORTERS: Mapping[str, Callable[..., None]] = {"legacy": _legacy, "dynamo": _dynamo}
"""PyTorch's exporters, in order of preference."""


def _vary(module: torch.nn.Module) -> None:
    """Replace weights and statistics that are initialised alike: exporters merge equal ones."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point() and tensor.numel() > 1 and tensor.min() == tensor.max():
                tensor.add_(torch.rand_like(tensor) / 16)


def export(name: str, size: int) -> onnx.ModelProto:
    """Export a network without its weights.

    Raises
    ------
    RuntimeError
        If no exporter can; the message has the problem of each.
    """
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    recipe = NETWORKS[name]
    built, inputs = recipe.build(size)
    module = _Tensors(built, tuple(inputs) if recipe.by_name else ()).eval()
    _vary(module)
    values = tuple(inputs.values())
    problems = []
    with torch.no_grad():
        module(*values)  # a fault of the recipe is no fault of an exporter
        for exporter, write in EXPORTERS.items():
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.onnx"
                signal.alarm(TIME_LIMIT_S)
                try:
                    write(
                        module, values, f=str(file), opset_version=OPSETS[exporter],
                        input_names=list(inputs),
                    )  # fmt: skip
                except Exception as error:
                    problems.append(f"{exporter}: {type(error).__name__}: {str(error)[:500]}")
                    continue
                finally:
                    signal.alarm(0)
                model = onnx.load(file)
            strip(model, f"{name}@{size}")
            model.metadata_props.add(key=EXPORTER, value=exporter)
            return model
    raise RuntimeError("\n".join(problems))
