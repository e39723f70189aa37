"""ONNX files of multi-exit PyTorch modules."""

from __future__ import annotations

import io
import warnings

import torch

from layoutsel.exits.training.attach import MultiExit
from layoutsel.exits.training.settings import INPUT

OPSET = 17
"""Version of ONNX's operators."""


def exit_names(early: int) -> tuple[str, ...]:
    """Names of the exits and of their outputs: ``exit1``, ``exit2``, …, ``final``."""
    return (*(f"exit{index + 1}" for index in range(early)), "final")


def export(model: MultiExit, example: torch.Tensor) -> bytes:
    """Export a module with one output per exit as an ONNX model.

    Parameters
    ----------
    model
        Trained module.
    example
        Input with the exported shape, (1, ...).
    """
    model.eval()
    made = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter by tracing is deprecated, but it takes a fraction of the other one's time.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            made,
            input_names=[INPUT],
            output_names=list(exit_names(len(model.heads))),
            opset_version=OPSET,
            dynamo=False,
        )
    return made.getvalue()
