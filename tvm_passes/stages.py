"""Stages of a model: groups of sub-graphs that are called together; imports no TVM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tvm_passes.decision import SubgraphId
from tvm_passes.errors import IllegalDecision

Stages = Mapping[str, Sequence[SubgraphId]]
"""Sub-graphs of each stage by its name; a stage reads only tensors of earlier stages."""


def entry_name(stage: str) -> str:
    """Return the name of the function that computes a stage."""
    return f"stage_{stage}"


def check_stages(stages: Stages, subgraphs: Iterable[SubgraphId]) -> None:
    """Check that stages contain each of `subgraphs` once; raises :class:`IllegalDecision`."""
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
    """Check that no stage reads a tensor of a later one.

    Parameters
    ----------
    order
        Names of all stages, in order.
    reader, producer
        Names of the two stages.
    tensor
        Name of the tensor, for the message.

    Raises
    ------
    IllegalDecision
        If `producer` is a later stage than `reader`.
    """
    if order.index(reader) < order.index(producer):
        raise IllegalDecision(
            f"stage {reader!r} reads {tensor} of the later stage {producer!r}: "
            f"list a stage after those that it reads, or move the sub-graph"
        )
