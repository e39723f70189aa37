"""Times of atoms on the nodes of a class, from the class's planning problem and plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from layoutsel.cluster.problem import AtomGraph, ClassCosts
from layoutsel.cost.place import OUTSIDE, Place
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.prices import UnpricedBoundary
from layoutsel.planning.problem import Option, PlanningProblem, boundaries_of
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import HOST_DEVICE

PriceOn = Callable[[str, Sequence[UnpricedBoundary]], Sequence[float]]
"""Function of (class, boundaries) that prices them on such a node, microseconds, in order."""


@dataclass(frozen=True, kw_only=True)
class ClassProblem:
    """A network on one node of a class: all candidates, and those of the class's plan."""

    problem: PlanningProblem
    """Planning problem of the whole network."""
    decisions: Mapping[SubgraphId, Decision]
    """Decisions of the class's plan."""

    @cached_property
    def chosen(self) -> Mapping[SubgraphId, Option]:
        """Candidate of each sub-graph in the plan."""
        return {node.id: node.option(self.decisions[node.id]) for node in self.problem.nodes}

    def made(self, tensor: Tensor) -> Place:
        """Place in which the plan makes a tensor."""
        if tensor.producer is None:
            return OUTSIDE
        return self.chosen[tensor.producer].made[tensor.output_index]


def class_costs(
    graph: AtomGraph, classes: Mapping[str, ClassProblem], price: PriceOn
) -> dict[str, ClassCosts]:
    """Compute the times of the atoms in each class.

    An atom is a stage: it reads tensors as its own class makes them, and transforms them itself. A
    tensor of another class is first transformed to what its own class makes.

    Parameters
    ----------
    graph
        Network as atoms.
    classes
        Network on one node, by class.
    price
        Function that prices the transforms between classes.
    """
    return {
        name: ClassCosts(
            us={atom: sum(_parts_us(graph, atom, one)) for atom in graph.atoms},
            spread_us={
                atom: sum(one.chosen[id_].spread_us ** 2 for id_ in held) ** 0.5
                for atom, held in graph.atoms.items()
            },
            repack_us={
                other: found
                for other, sender in classes.items()
                if other != name and (found := _repack_us(graph, sender, one, name, price))
            },
            shared_spread=one.problem.shared_spread,
        )
        for name, one in classes.items()
    }


def _parts_us(graph: AtomGraph, atom: str, own: ClassProblem) -> Iterator[float]:
    """Yield the times of an atom's sub-graphs and boundaries, microseconds.

    Boundaries are those of its inputs, and of results of the model that it makes.
    """
    held, chosen = set(graph.atoms[atom]), own.chosen
    yield from (chosen[id_].cost_us for id_ in held)
    for tensor in own.problem.tensors:
        uses = tuple(
            use
            for use in tensor.uses
            if use.consumer in held or (use.consumer is None and tensor.producer in held)
        )
        if uses:
            here = replace(tensor, uses=uses)
            yield from (boundary.cost_us for boundary in boundaries_of(here, chosen))


def _repack_us(
    graph: AtomGraph, sender: ClassProblem, receiver: ClassProblem, name: str, price: PriceOn
) -> dict[str, float]:
    """Price the transforms of tensors that another class made, microseconds; without free ones.

    The receiver transforms in its host memory. Copies to devices count as well.
    """
    tensors = {tensor.name: tensor for tensor in receiver.problem.tensors}
    asked: dict[str, UnpricedBoundary] = {}
    found: dict[str, float] = {}
    for joined in graph.tensors:
        tensor = tensors[graph.name(joined)]
        made, wanted = sender.made(tensor), receiver.made(tensor)
        if made.layout != wanted.layout:
            asked[joined.name] = UnpricedBoundary(
                kind="transform",
                tensor=tensor,
                source=Place(made.layout),
                destination=Place(wanted.layout),
            )
        if wanted.device != HOST_DEVICE:
            found[joined.name] = tensor.copy_us.get((OUTSIDE.memory, wanted.memory), 0.0)
    prices = price(name, list(asked.values())) if asked else ()
    for tensor_name, us in zip(asked, prices, strict=True):
        found[tensor_name] = found.get(tensor_name, 0.0) + us
    return {tensor_name: us for tensor_name, us in found.items() if us}
