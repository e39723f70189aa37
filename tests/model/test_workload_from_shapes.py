"""Every sub-graph of several networks: its workload made without TVM equals the one made from its function."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from layoutsel import documents
from layoutsel.building.workloads import workload
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.cost.readable import read_workload
from layoutsel.zoo.sweep import KINDS, sweep_module

WITHOUT_TVM = """
import json, sys
sys.modules["tvm"] = None
from layoutsel.cost.operations import Operation, TypedShape
from layoutsel.cost.workload import SubgraphShapes
from layoutsel import documents

def tensors(described):
    return tuple(TypedShape(tuple(shape), dtype) for shape, dtype in described)

def operation(operator, inputs, outputs, attributes):
    return Operation(operator=operator, inputs=tensors(inputs), outputs=tensors(outputs),
                     attributes={name: tuple(values) for name, values in attributes.items()})

made = []
for one in json.load(sys.stdin):
    shapes = SubgraphShapes(
        operations=tuple(operation(*each) for each in one["operations"]),
        **{name: tensors(one[name]) for name in ("inputs", "weights", "outputs")},
        named_anchor=one["anchor"],
    )
    made.append(documents.to_json(shapes.workload(key=one["key"], hints=one["hints"])))
assert not any(module.startswith("tvm_ffi") for module in sys.modules)
json.dump(made, sys.stdout)
"""


def _tensors(some):
    return [[list(tensor.shape), tensor.dtype] for tensor in some]


def _described(subgraph, hints):
    """Plain JSON: names, shapes, types and attributes."""
    return {
        "anchor": subgraph.anchor,
        "key": subgraph.structural_hash,
        "hints": {decision: dict(facts) for decision, facts in hints.items()},
        "operations": [
            [one.operator, _tensors(one.inputs), _tensors(one.outputs), dict(one.attributes)]
            for one in subgraph.shapes.operations
        ],
        **{name: _tensors(getattr(subgraph, name)) for name in ("inputs", "weights", "outputs")},
    }


SOURCES = {
    "every kind": lambda: sweep_module(40, 11, tuple((1.0, kind) for _, kind in KINDS)),
    "shufflenet": lambda: "light:shufflenet",
    "squeezenet": lambda: "light:squeezenet",
}


@pytest.mark.parametrize("name", SOURCES)
def test_equal_without_tvm(name):
    session = Session.open(SOURCES[name](), units=["cpu"], threads=2)
    offers = Offers.of(session)
    subgraphs = session.graph.subgraphs
    described = [_described(one, offers.workloads[one.id].hints) for one in subgraphs]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TVM],
        input=json.dumps(described),
        capture_output=True,
        text=True,
        check=True,
    )
    made = [read_workload(one) for one in json.loads(done.stdout)]
    assert len(made) == len(subgraphs) > 10
    for subgraph, work in zip(subgraphs, made, strict=True):
        expected = offers.workloads[subgraph.id]
        assert work == expected
        assert work.hints == documents.to_json(expected)["hints"]
        assert work == workload(subgraph)


def test_the_anchor_need_not_be_named():
    """By the operators themselves, for all but normalisations that a partition recognises as a whole."""
    session = Session.open("light:shufflenet", units=["cpu"], threads=2)
    for subgraph in session.graph.subgraphs:
        unnamed = type(subgraph.shapes)(
            operations=subgraph.shapes.operations,
            inputs=subgraph.inputs,
            weights=subgraph.weights,
            outputs=subgraph.outputs,
        )
        assert unnamed.anchor == subgraph.anchor
