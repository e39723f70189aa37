"""Stages of a model: which sub-graphs are called together. Without TVM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tvm_passes.decision import SubgraphId
from tvm_passes.errors import IllegalDecision

Stages = Mapping[str, Sequence[SubgraphId]]
"""The sub-graphs of each stage, by its name. A stage reads tensors of stages before it alone."""


def entry_name(stage: str) -> str:
    """Name of the function that computes a stage."""
    return f"stage_{stage}"


def check_stages(stages: Stages, subgraphs: Iterable[SubgraphId]) -> None:
    """Refuse stages that do not hold each of `subgraphs` once; raises :class:`IllegalDecision`."""
    known = dict.fromkeys(subgraphs)
    stage_of: dict[SubgraphId, str] = {}
    for name, held in stages.items():
        if not name.isidentifier():
            raise IllegalDecision(f"stage {name!r}: expected a name of letters, digits and '_'")
        if not held:
            raise IllegalDecision(f"stage {name!r} holds no sub-graph: expected one or more")
        for id_ in held:
            if id_ not in known:
                raise IllegalDecision(
                    f"stage {name!r} holds sub-graph {id_}, which the model does not have"
                )
            if id_ in stage_of:
                raise IllegalDecision(
                    f"sub-graph {id_} is in stages {stage_of[id_]!r} and {name!r}: expected one"
                )
            stage_of[id_] = name
    if missing := [id_ for id_ in known if id_ not in stage_of]:
        raise IllegalDecision(f"sub-graph {missing[0]} is in no stage: put it into one")


def check_reads(order: Sequence[str], reader: str, producer: str, tensor: str) -> None:
    """Refuse that a stage reads a tensor of a later one; raises :class:`IllegalDecision`.

    Parameters
    ----------
    order
        Names of all stages, in order.
    """
    if order.index(reader) < order.index(producer):
        raise IllegalDecision(
            f"stage {reader!r} reads {tensor} of the later stage {producer!r}: "
            f"list a stage after those that it reads, or move the sub-graph"
        )
