"""Do networks give the right result whatever their sub-graphs run on? Pins force units, three ways, upon each model.

``python bench/forced_units.py light:resnet50 … --json bench/results/forced_units.json``. Errors are against ONNX Runtime, logits
included. The units are those of this machine that are named below, devices included.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from script import run

from layoutsel.benchmarking.cases import case_name
from layoutsel.compile.build_best import finish
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.planning.chains import chains
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.units.base import units

DEVICES = ("cuda", "opencl")
UNITS = tuple(n for n in ("cpu", "onednn", *DEVICES) if units()[n].unavailable() is None)
DEVICE = next((name for name in UNITS if name in DEVICES), UNITS[-1])


def _by_turns(session: Session) -> dict[str, str]:
    return {g.id: UNITS[i % len(UNITS)] for i, g in enumerate(session.graph.subgraphs)}


def _by_halves(session: Session) -> dict[str, str]:
    subgraphs = session.graph.subgraphs
    return {g.id: DEVICE if 2 * i < len(subgraphs) else "cpu" for i, g in enumerate(subgraphs)}


def _by_branches(session: Session) -> dict[str, str]:
    """Chains between places where the network branches or joins, by turns: two branches are on two units."""
    found = chains(priced_problem(Offers.of(session), "roofline"))
    order = {g.id: i for i, g in enumerate(session.graph.subgraphs)}
    found.sort(key=lambda chain: order[chain[0]])
    return {id_: (DEVICE, "cpu")[i % 2] for i, chain in enumerate(found) for id_ in chain}


WAYS: Mapping[str, Callable[[Session], dict[str, str]]] = {
    "by turns": _by_turns,
    "by halves": _by_halves,
    "by branches": _by_branches,
}
"""Sub-graphs on all units by turns; the first half on a device; branches on two units, which work at once."""


def forced(model: str, way: str, threads: int) -> tuple[CompiledModel, Mapping[str, str]]:
    """The model with its sub-graphs on the units that `way` says, and what was pinned: all that such a unit can do."""
    session = Session.open(model, units=UNITS, threads=threads, parallel=way == "by branches")
    offers = Offers.of(session)
    able = {id_: {d.unit for d in c.decisions} for id_, c in offers.candidates.items()}
    wanted = {id_: unit for id_, unit in WAYS[way](session).items() if unit in able[id_]}
    problem = priced_problem(offers, "roofline", [f"{id_}={unit}" for id_, unit in wanted.items()])
    return finish(session, best_plan(session, problem), problem, verify_speed=False), wanted


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """One row for each way, with the errors that were found."""
    for way in WAYS:
        start = time.perf_counter()
        compiled, wanted = forced(model, way, threads)
        decided = {s["id"]: s["decision"].split(":")[0] for s in compiled.plan["subgraphs"]}
        assert all(decided[id_] == unit for id_, unit in wanted.items())
        yield {
            "model": case_name(model),
            "way": way,
            "units": dict(sorted(Counter(decided.values()).items())),
            "pinned": len(wanted),
            "fell_back": sorted(compiled.header["fallbacks"]),
            "errors": {check["output"]: check["rel_l2_err"] for check in compiled.checks},
            "seconds": round(time.perf_counter() - start, 1),
        }


if __name__ == "__main__":
    run(rows, __doc__)
