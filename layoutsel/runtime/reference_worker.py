"""What a process computes that runs a reference. Called by name, in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from layoutsel.runtime.onnx_reference import expose_logits, session_options
from layoutsel.runtime.reference_engine import import_onnxruntime
from layoutsel.runtime.stored_model import open_stored

REFUSED, MISSING, RESULTS = "refused", "missing", "results"
"""What becomes of a reference that can be told of; anything else is the process's end."""


def compute(payload: Mapping[str, Any]) -> tuple[str, Any]:
    """Results of the reference that `payload` names, for each of its samples; or why there are none."""
    return _REFERENCES[payload["reference"]](payload)


def _onnxruntime(payload: Mapping[str, Any]) -> tuple[str, Any]:
    try:
        import_onnxruntime()
    except ImportError as error:
        return MISSING, str(error)
    try:
        model = onnx.ModelProto.FromString(payload["model"])
        options = session_options(optimised=payload["optimised"])
        session, _weights = open_stored(
            expose_logits(model), payload["names"], payload["arrays"], options
        )
        return RESULTS, [session.run(None, feed) for feed in payload["samples"]]
    except Exception as error:  # whatever ONNX Runtime refuses a model with
        return REFUSED, str(error)


def _stock_tvm(payload: Mapping[str, Any]) -> tuple[str, list[list[np.ndarray]]]:
    import tvm

    from layoutsel.runtime.stock_tvm import run_stock

    module = tvm.ir.load_json(payload["module"])
    return RESULTS, run_stock(module, payload["samples"], payload["arrays"].mapped())


_REFERENCES = {"onnxruntime": _onnxruntime, "tvm": _stock_tvm}
