"""One trial, in a process of its own: a model through layoutsel, and its results against ONNX Runtime's."""

from __future__ import annotations

import resource
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from layoutsel.compile.compiling import compiled
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.compile.verification import Reference, VerificationSample, checks_of, reference_of
from layoutsel.cost.graph import Subgraph
from layoutsel.errors import LayoutselError
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.units.base import units
from tvm_passes.decision import Decision

DATA_LIMIT_BYTES = 8 << 30
"""Memory that a trial may ask for."""

LARGE_BYTES = 1 << 25
"""A mutated file with a larger tensor is imported and not run: whatever runs it takes long."""

FAILURES = ("wrong", "unsteady", "error")
"""Verdicts that are faults; so are a crash and a hang, which the parent process sees."""


@cache
def _units() -> tuple[str, ...]:
    return tuple(name for name, unit in units().items() if unit.unavailable() is None)


@cache
def _cache_file() -> str:
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT_BYTES, DATA_LIMIT_BYTES))
    return str(Path(tempfile.mkdtemp(prefix="fuzz-")) / "measurements.sqlite")


def run(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Try a model.

    Parameters
    ----------
    payload
        ``model``: bytes of a file. ``seed``: of the decisions. ``precision``: of the session. ``forced``: whether every
        sub-graph gets a random decision; else the planner decides.

    Returns
    -------
    dict
        ``verdict`` (``right``, ``wrong``, ``unsteady``, ``refused``, ``error``, ``unverified`` where ONNX Runtime does
        not take the model), ``detail``, ``decisions``, ``fell_back``, ``error`` (the largest relative L2 error).
    """
    store = _cache_file()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(payload["model"])
        decisions: dict[str, str] = {}
        try:
            return _tried(path, payload, store, decisions)
        except LayoutselError as error:
            return _verdict("refused", f"{type(error).__name__}: {error}", decisions)
        except Exception as error:  # the fault that is looked for
            return _verdict("error", f"{type(error).__name__}: {error}", decisions)


def _tried(
    path: Path, payload: Mapping[str, Any], store: str, decisions: dict[str, str]
) -> dict[str, Any]:
    names = [n for n in _units() if n != "amx" or payload["precision"] != "f32"]
    session = Session.open(
        path,
        units=names if payload["forced"] else None,
        threads=2,
        precision=payload["precision"],
        cache=store,
    )
    sizes = [edge.tensor.nbytes for edge in session.graph.edges]
    if max(sizes, default=0) > LARGE_BYTES:
        return _verdict("unverified", "a large tensor", decisions)
    reference = reference_of(session)
    if reference.name != "ONNX Runtime":
        return _verdict("unverified", "ONNX Runtime refuses the model", decisions)
    if payload["forced"]:
        decisions.update(_random_decisions(session, payload["seed"]))
    pins = [f"{id_}={decision}" for id_, decision in decisions.items()]
    plan = best_plan(session, priced_problem(Offers.of(session), "roofline", pins))
    decisions.update({id_: str(decision) for id_, decision in plan.decisions.items()})
    return _judged(session, reference, compiled(session, plan), decisions)


def _judged(
    session: Session, reference: Reference, model: CompiledModel, decisions: Mapping[str, str]
) -> dict[str, Any]:
    """Compare the results of a built model with those of ONNX Runtime."""
    expected = [result for sample in reference.samples for result in sample.expected]
    if not all(np.isfinite(result).all() for result in expected if result.dtype.kind == "f"):
        # Units differ in what they make of NaN, as layoutsel.units.base says.
        return _verdict("unverified", "the reference is not finite", decisions)
    checks = checks_of(model, reference, session.precision.bound)
    worst = max(checks, key=lambda check: check.rel_l2_err / check.tolerance)
    found = {"fell_back": sorted(model.header["fallbacks"]), "error": worst.rel_l2_err}
    if not worst.passed and _is_ill_conditioned(session, reference.samples[0]):
        return _verdict("unverified", "rounding the inputs changes the results as much", decisions)
    if not worst.passed:
        detail = f"{worst.output}: {worst.rel_l2_err:.1e}, at most {worst.tolerance:.0e}"
        return _verdict("wrong", detail, decisions) | found
    inputs = reference.samples[0].inputs
    first, second = ([np.array(r) for r in model.run_all(inputs)] for _ in range(2))
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)):
        return _verdict("unsteady", "two calls differ", decisions) | found
    return _verdict("right", "", decisions) | found


def _verdict(verdict: str, detail: str, decisions: Mapping[str, str]) -> dict[str, Any]:
    line = " ".join(detail.split())[:400]
    return {"verdict": verdict, "detail": line, "decisions": dict(decisions), "fell_back": []}


def _is_ill_conditioned(session: Session, sample: VerificationSample) -> bool:
    """Whether the reference itself exceeds the tolerance where only its inputs are rounded.

    They are rounded to bfloat16 in a narrow mode; else every other input by the last bit of float32. So it is where
    results cancel, such as the mean of values whose mean was taken off.
    """
    move = _by_one_bit if session.precision.only_f32 else _to_bfloat16
    inputs = [move(x) if x.dtype.kind == "f" else x for x in sample.inputs]
    moved = reference_of(replace(session, samples=(inputs,))).samples[0].expected
    tolerance = session.precision.tolerance
    return any(
        np.linalg.norm(a.astype("float64") - b) > tolerance * np.linalg.norm(a.astype("float64"))
        for a, b in zip(sample.expected, moved, strict=True)
    )


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    return values.astype(ml_dtypes.bfloat16).astype(values.dtype)


def _by_one_bit(values: np.ndarray) -> np.ndarray:
    moved = values.copy().reshape(-1)
    moved[::2] = np.nextafter(moved[::2], np.inf, dtype=values.dtype)
    return moved.reshape(values.shape)


def _random_decisions(session: Session, seed: int) -> dict[str, str]:
    """A random legal decision of each sub-graph, the same for the same names: it outlives other parts of the graph."""
    offers = Offers.of(session)
    return {
        subgraph.id: str(_random_decision(offers, subgraph, seed))
        for subgraph in session.graph.subgraphs
    }


def _random_decision(offers: Offers, subgraph: Subgraph, seed: int) -> Decision:
    name = "/".join(sorted(subgraph.names)) or subgraph.id
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    legal = offers.candidates[subgraph.id].decisions
    names = sorted({decision.unit for decision in legal})
    unit = names[int(rng.integers(len(names)))]
    theirs = [decision for decision in legal if decision.unit == unit]
    return theirs[int(rng.integers(len(theirs)))]
