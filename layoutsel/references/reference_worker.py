"""Computation of reference results in a child process, which calls it by name."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from layoutsel.references.onnx_reference import expose_logits, session_options
from layoutsel.references.reference_engine import import_onnxruntime
from layoutsel.references.stored_model import open_stored

REFUSED, MISSING, RESULTS = "refused", "missing", "results"
"""Kinds of answers: the model is refused, the engine is missing, or results."""


def compute(payload: Mapping[str, Any]) -> tuple[str, Any]:
    """Compute the reference's results for each sample of a payload, or the reason of a failure."""
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
    except Exception as error:  # ONNX Runtime may raise anything for a model
        return REFUSED, str(error)


def _stock_tvm(payload: Mapping[str, Any]) -> tuple[str, list[list[np.ndarray]]]:
    import tvm

    from layoutsel.references.stock_tvm import run_stock
    from tvm_passes.operator_calls import declare_operators

    declare_operators()
    module = tvm.ir.load_json(payload["module"])
    return RESULTS, run_stock(module, payload["samples"], payload["arrays"].mapped())


def _exact(payload: Mapping[str, Any]) -> tuple[str, Any]:
    from layoutsel.references.exact_reference import exact_results

    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (payload["most_bytes"], most))
    try:
        model = expose_logits(onnx.ModelProto.FromString(payload["model"]))
        names = [name for name, _ in payload["names"]]
        weights = dict(zip(names, payload["arrays"].mapped(), strict=True))
        return RESULTS, [exact_results(model, weights, feed) for feed in payload["samples"]]
    except MemoryError:
        return REFUSED, f"more than {payload['most_bytes'] / 1e9:.1f} GB of memory"
    except Exception as error:  # the evaluator may raise anything for a model
        return REFUSED, f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))  # the next call sets its own


_REFERENCES = {"onnxruntime": _onnxruntime, "tvm": _stock_tvm, "float64": _exact}
"""Functions by name of the reference."""
