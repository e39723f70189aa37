"""Stages of a plan: separately callable parts of a model, each on its own worker."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from layoutsel import documents
from layoutsel.cost.tensor import Tensor
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import IllegalDecision
from tvm_passes.stages import check_reads, check_stages

Reads = Mapping[SubgraphId, Sequence[str]]
"""Names of the tensors that each sub-graph reads.

``head.0`` is output 0 of head, ``input.1`` is input 1 of the model.
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A separately callable part of a plan, such as a trunk, a branch or a node's part."""

    name: str
    """Name of the stage, unique in the plan: letters, digits and ``_``."""
    subgraphs: tuple[SubgraphId, ...]
    """Sub-graphs of the stage."""
    inputs: tuple[str, ...]
    """Input tensors: inputs of the model (``input.0``), results of earlier stages (``head.0``)."""
    outputs: tuple[str, ...]
    """Output tensors: results for later stages (``head.0``), model outputs (``output.0``)."""
    worker: str = ""
    """Name of the worker that runs it, for instance a unit; empty if undecided."""
    stays: bool = field(default=False, metadata=documents.OPTIONAL)
    """True if tensors for other such stages on the same device stay in the device's memory.

    Only whole models and chains of stages can then be called with arrays.
    """


def make_stages(
    subgraphs: Mapping[str, Sequence[SubgraphId]],
    reads: Reads,
    results: Sequence[str],
    workers: Mapping[str, str] | None = None,
    staying: Container[str] = (),
) -> tuple[Stage, ...]:
    """Make stages of given sub-graphs.

    Parameters
    ----------
    subgraphs
        Sub-graphs by stage; a stage comes after those whose tensors it reads.
    reads
        Tensors that each sub-graph of the model reads.
    results
        Tensors that the model returns, named as in `reads`.
    workers
        Workers by stage, where known.
    staying
        Stages whose tensors may stay on a device; see :attr:`Stage.stays`.

    Raises
    ------
    IllegalDecision
        If a sub-graph is in no stage or in two, or a stage reads a tensor of a later one.
    """
    check_stages(subgraphs, reads)
    home = {id_: name for name, held in subgraphs.items() for id_ in held}
    order = list(subgraphs)
    inputs: dict[str, dict[str, None]] = {name: {} for name in subgraphs}
    outputs: dict[str, dict[str, None]] = {name: {} for name in subgraphs}
    for consumer in reads:
        for tensor in reads[consumer]:
            here, there = home[consumer], home.get(producer_of(tensor))
            if there == here:
                continue
            inputs[here][tensor] = None
            if there is not None:
                check_reads(order, here, there, tensor)
                outputs[there][tensor] = None
    for index, tensor in enumerate(results):
        where = home.get(producer_of(tensor), order[-1])
        outputs[where][f"output.{index}"] = None
        if producer_of(tensor) not in home:
            inputs[where][tensor] = None
    return tuple(
        Stage(
            name=name,
            subgraphs=tuple(held),
            inputs=tuple(inputs[name]),
            outputs=tuple(outputs[name]),
            worker=(workers or {}).get(name, ""),
            stays=name in staying,
        )
        for name, held in subgraphs.items()
    )


def check_complete(stages: Sequence[Stage], reads: Reads, results: Sequence[str]) -> None:
    """Reject stages that do not fit the model or each other.

    Raises
    ------
    IllegalDecision
        If a stage does not fit; the message names the first difference.
    """
    names = [stage.name for stage in stages]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise IllegalDecision(f"two stages are called {twice!r}: expected different names")
    expected = make_stages({stage.name: stage.subgraphs for stage in stages}, reads, results)
    for got, want in zip(stages, expected, strict=True):
        for side in ("inputs", "outputs"):
            listed, needed = set(getattr(got, side)), set(getattr(want, side))
            if listed != needed:
                raise IllegalDecision(
                    f"stage {got.name!r}: got the {side} {_listed(listed)}; "
                    f"expected {_listed(needed)}, by its sub-graphs"
                )


def uses_of(
    ids: Iterable[SubgraphId], tensors: Iterable[Tensor]
) -> tuple[dict[SubgraphId, tuple[str, ...]], tuple[str, ...]]:
    """List the names of the tensors that sub-graphs read and that the model returns, in order.

    Parameters
    ----------
    ids
        Sub-graphs in order of execution.
    tensors
        Tensors with all their uses.
    """
    found: dict[SubgraphId | None, dict[int, str]] = {id_: {} for id_ in ids}
    for tensor in tensors:
        for use in tensor.uses:
            found.setdefault(use.consumer, {})[use.input_index] = tensor.name
    names = {id_: tuple(uses[index] for index in sorted(uses)) for id_, uses in found.items()}
    results = names.pop(None, ())
    return {id_: reads for id_, reads in names.items() if id_ is not None}, results


def producer_of(tensor: str) -> SubgraphId:
    """Return the producer of a tensor: ``head`` of ``head.0``, ``input`` of ``input.1``."""
    return SubgraphId(tensor.rpartition(".")[0])


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
