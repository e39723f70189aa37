"""Calls of a plan: each sub-graph with the boundaries of its inputs, and their resources."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from layoutsel.cost.place import HOST, OUTSIDE, Place
from layoutsel.cost.tensor import KINDS, Tensor, is_boundary
from layoutsel.planning.problem import Option, PlanningProblem
from layoutsel.planning.resources import ResourceModel, Resources
from tvm_passes.decision import Decision, SubgraphId


@dataclass(frozen=True)
class BoundaryStep:
    """A layout transform, hand-over or copy that some call needs; equal steps are done once."""

    name: str
    """Name: tensor, kind and destination."""
    resources: Resources = field(compare=False)
    """Resources of the step."""
    to_device: bool
    """True for a copy to a device: it comes directly before the call that needs it."""
    producer: SubgraphId | None = field(compare=False)
    """Producer of the tensor; None for an input of the model."""
    after: BoundaryStep | None = field(compare=False)
    """Previous boundary of the same tensor; None if the step reads the producer's result."""

    def __hash__(self) -> int:
        # Schedules look steps up very often, and a string keeps its hash.
        return hash(self.name)


@dataclass(frozen=True)
class Call:
    """A sub-graph after the boundaries of its inputs, or the hand-over of the model's results."""

    id: SubgraphId | None
    """None for the results of the model."""
    resources: Resources
    """Resources of the sub-graph itself."""
    needs: tuple[SubgraphId, ...]
    """Producers of its inputs."""
    brings: tuple[BoundaryStep, ...]
    """Boundaries of its inputs, in order."""

    @property
    def path_us(self) -> float:
        """Time of the call with all its boundaries, one after the other, microseconds."""
        return self.resources.duration_us + sum(one.resources.duration_us for one in self.brings)

    def first(self, done: Collection[BoundaryStep]) -> Resources:
        """Return the resources of the first remaining step."""
        left = (one.resources for one in self.brings if one not in done)
        return next(left, self.resources)

    def blocks_caller(self, done: Collection[BoundaryStep]) -> bool:
        """True if any step that is left to do occupies its caller."""
        return self.resources.blocks_caller or any(
            one.resources.blocks_caller for one in self.brings if one not in done
        )

    def is_copied_to_device(self, done: Collection[BoundaryStep]) -> bool:
        """True if any step that is left to do is a copy to a device."""
        return any(one.to_device for one in self.brings if one not in done)


class Calls:
    """Calls of many plans of one problem; calls that plans share are made once."""

    def __init__(self, problem: PlanningProblem) -> None:
        self._resources = problem.resources
        self._options = {(n.id, o.decision): o for n in problem.nodes for o in n.options}
        self._reads: dict[SubgraphId | None, list[tuple[Tensor, int]]] = dict(
            reads_of(problem).items()
        )
        self._reads[None] = [
            (tensor, 0)
            for tensor in problem.tensors
            if any(use.consumer is None for use in tensor.uses)
        ]
        self._known: dict[tuple[SubgraphId | None, tuple[Decision, ...]], Call] = {}

    def of(self, decisions: Mapping[SubgraphId, Decision]) -> list[Call]:
        """List the calls of a plan in topological order; the results of the model come last."""
        return [self.call(id_, decisions) for id_ in self._reads]

    def makers(self, id_: SubgraphId | None) -> list[SubgraphId]:
        """List the producers of the tensors that a call reads, one for each tensor."""
        return [tensor.producer for tensor, _ in self._reads[id_] if tensor.producer is not None]

    def call(self, id_: SubgraphId | None, decisions: Mapping[SubgraphId, Decision]) -> Call:
        """Return one call, which depends on the decisions for the sub-graph and its producers."""
        makers = self.makers(id_)
        concerned = tuple(decisions[one] for one in (*([id_] if id_ is not None else ()), *makers))
        if (id_, concerned) not in self._known:
            chosen = {maker: self._options[maker, decisions[maker]] for maker in makers}
            self._known[id_, concerned] = self._made(id_, decisions, chosen)
        return self._known[id_, concerned]

    def _made(
        self,
        id_: SubgraphId | None,
        decisions: Mapping[SubgraphId, Decision],
        chosen: Mapping[SubgraphId, Option],
    ) -> Call:
        reads = self._reads[id_]
        if id_ is None:
            wanted = [(tensor, OUTSIDE) for tensor, _ in reads]
            own = self._resources.compute(OUTSIDE.unit, OUTSIDE.memory, 0.0)
        else:
            option = self._options[id_, decisions[id_]]
            wanted = [(tensor, option.wanted[index]) for tensor, index in reads]
            own = self._resources.compute(option.decision.unit, option.memory, option.cost_us)
        brings = [
            step
            for tensor, place in wanted
            for step in _boundaries(self._resources, tensor, place, chosen)
        ]
        brings.sort(key=lambda step: step.to_device)
        needs = [tensor.producer for tensor, _ in wanted if tensor.producer is not None]
        return Call(id_, own, tuple(dict.fromkeys(needs)), tuple(dict.fromkeys(brings)))


def _boundaries(
    resources: ResourceModel,
    tensor: Tensor,
    wanted: Place,
    chosen: Mapping[SubgraphId, Option],
) -> Iterator[BoundaryStep]:
    """Yield the boundaries between a tensor's producer and its destination, in order."""
    source, last = OUTSIDE, None
    if tensor.producer is not None:
        source = chosen[tensor.producer].made[tensor.output_index]
    for kind in _kinds(resources, source, wanted):
        if not is_boundary(kind, source, wanted):
            continue
        # A layout that is transformed after the copy needs no copy of its own.
        to_device = kind == "copy" and wanted.memory != HOST and not resources.receivers_transform
        destination = f"{KINDS[kind](wanted)}{f' in {wanted.layout}' if to_device else ''}"
        us = tensor.price(kind, source, wanted)
        steps = resources.boundary(kind, source.memory, wanted.memory, us)
        for number, used in enumerate(steps, 1):
            part = "" if number == len(steps) else f", step {number}"
            last = BoundaryStep(
                name=f"{tensor.name} {kind} to {destination}{part}",
                resources=used,
                to_device=to_device,
                producer=tensor.producer,
                after=last,
            )
            yield last


def _kinds(resources: ResourceModel, source: Place, wanted: Place) -> Sequence[str]:
    """Return the order of boundaries: transforms on the host come after copies to it.

    They come before copies from it, unless receivers transform.
    """
    if resources.receivers_transform or (source.memory != HOST and wanted.memory == HOST):
        return ("copy", "transform", "crossing")
    return ("transform", "copy", "crossing")


def reads_of(problem: PlanningProblem) -> dict[SubgraphId, list[tuple[Tensor, int]]]:
    """List the tensors that each sub-graph reads, each with the index of the input."""
    reads: dict[SubgraphId, list[tuple[Tensor, int]]] = {node.id: [] for node in problem.nodes}
    for tensor in problem.tensors:
        for use in tensor.uses:
            if use.consumer is not None:
                reads[use.consumer].append((tensor, use.input_index))
    return reads


def memories_of(problem: PlanningProblem) -> tuple[str, ...]:
    """List the memories that candidates compute in, the host's first if it is one of them."""
    found = {option.memory for node in problem.nodes for option in node.options}
    return tuple(sorted(found, key=lambda memory: (memory != HOST, memory)))
