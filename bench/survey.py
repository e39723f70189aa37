"""Which sub-graphs have no kernel, on which unit, and why? Every network of the zoos, and some that nobody tuned for.

``python bench/survey.py [MODEL …] --json bench/results/survey.json`` (without models: all of them)
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from survey_networks import NETWORKS, network

from layoutsel.benchmarking.compare import save
from layoutsel.compile.generic import NOTABLE
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.units.base import units
from layoutsel.zoo.architectures import ARCHITECTURES
from layoutsel.zoo.light_models import LIGHT_MODELS
from layoutsel.zoo.recorded import PREFIX as ZOO
from layoutsel.zoo.recorded import recorded_networks

UNITS = ("cpu", "onednn")
"""Units that compute in f32 on the host. Others decline what they have no kernel for, or get TVM's schedules."""
PREFIX = "net:"
"""What the name of a network of :mod:`survey_networks` starts with."""
EXPORTED = Path(__file__).parents[1] / "tests" / "data" / "exported"
DYNAMIC = {"x": (1, 3, 32, 32)}
"""Shape of the input of exported networks that leave it open."""


def every_model() -> list[str]:
    """Names of all networks that are surveyed."""
    return [
        *(f"light:{name}" for name in LIGHT_MODELS),
        *(f"arch:{name}" for name in ARCHITECTURES),
        *sorted(map(str, EXPORTED.glob("*.onnx"))),
        *(f"{PREFIX}{name}" for name in NETWORKS),
        *(f"{ZOO}{name}" for name in recorded_networks()),
    ]


def opened(model: str, names: tuple[str, ...]) -> Session:
    """A session with every unit that can be asked here."""
    is_ours = model.startswith(PREFIX)
    source = network(model.removeprefix(PREFIX)) if is_ours else model
    shapes = DYNAMIC if "dynamic" in model else None
    return Session.open(source, units=names, shapes=shapes)


def rows(model: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The sub-graphs without a kernel on a unit, equal reasons together; one row without any where there is none."""
    session = opened(model, names)
    offers = Offers.of(session)
    total = max(1, sum(subgraph.flops for subgraph in session.graph.subgraphs))
    found = []
    for subgraph in session.graph.subgraphs:
        offered = offers.candidates[subgraph.id]
        for unit in names:
            generic = [g for g in offered.generic if g.decision.split(":")[0] == unit]
            legal = [decision for decision in offered.decisions if decision.unit == unit]
            if generic and len(generic) == len(legal):
                reason = (unit, subgraph.anchor, generic[0].operator, generic[0].got)
                found.append((reason, subgraph.flops / total, offered.only_generic))
    name = Path(model).stem if model.endswith(".onnx") else model
    row = {"model": name, "subgraphs": len(session.graph.subgraphs), "mflop": round(total / 1e6, 2)}
    found.sort(key=lambda entry: entry[0])
    for reason, group in itertools.groupby(found, key=lambda entry: entry[0]):
        members = list(group)
        yield {
            **row,
            "unit": reason[0],
            "anchor": reason[1],
            "operator": reason[2],
            "reason": reason[3],
            "count": len(members),
            "share": round(sum(share for _, share, _ in members), 5),
            "only_generic_share": round(sum(share for _, share, only in members if only), 5),
        }
    if not found:
        yield {**row, "unit": "", "share": 0.0, "only_generic_share": 0.0}


def main() -> None:
    """Survey the networks that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    names = tuple(name for name in UNITS if units()[name].unavailable() is None)
    found: list[dict[str, Any]] = []
    for model in arguments.models or every_model():
        for row in rows(model, names):
            mark = "!" if row["only_generic_share"] > NOTABLE else " "
            print(mark, *row.values(), sep="\t", flush=True)
            found.append(row)
        save(arguments.json, found)


if __name__ == "__main__":
    main()
