"""Courses: routes as steps on resources, checked for completeness; input of the simulator."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property

from layoutsel.cluster.distribution import Distributions, Route, Segment, Transfer
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.statistics import Statistics
from layoutsel.planning.plan import Plan
from layoutsel.planning.resources import Resources
from tvm_passes.errors import LayoutselError

Copy = tuple[str, str]
"""A tensor on a node: both names."""


@dataclass(frozen=True, kw_only=True)
class CourseStep:
    """A segment or a transfer of a route."""

    name: str
    """Id of the segment, or tensor of the transfer."""
    phases: tuple[Resources, ...]
    """Occupied resources, one phase after another; those of one phase begin at once."""
    vertices: frozenset[str]
    """Nodes and switches that must work."""
    reads: tuple[Copy, ...]
    """Tensors that the step waits for, where it needs them."""
    writes: tuple[Copy, ...]
    """Tensors that the step makes available, and where."""
    joules: float
    """Energy of the links, joules."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """A route, compiled for simulation."""

    weight: float
    """Share of the requests that take it."""
    steps: tuple[CourseStep, ...]
    """Segments and transfers."""
    given: tuple[Copy, ...]
    """Inputs of the model at the origin."""
    results: frozenset[Copy]
    """Outputs of the model at the origin."""
    sizes: Mapping[str, int]
    """Size of each tensor, bytes; without an entry where the document does not tell."""

    @cached_property
    def vertices(self) -> frozenset[str]:
        """Nodes and switches that must work."""
        return frozenset().union(*(step.vertices for step in self.steps))

    @cached_property
    def starters(self) -> tuple[int, ...]:
        """Numbers of the steps that read nothing."""
        return tuple(number for number, step in enumerate(self.steps) if not step.reads)

    @cached_property
    def readers(self) -> Mapping[Copy, tuple[int, ...]]:
        """Numbers of the steps that read a tensor on a node."""
        found: dict[Copy, list[int]] = {}
        for number, step in enumerate(self.steps):
            for copy in step.reads:
                found.setdefault(copy, []).append(number)
        return {copy: tuple(numbers) for copy, numbers in found.items()}


@dataclass(frozen=True)
class Compiler:
    """Translation of routes into courses."""

    made: Distributions
    """Distributions with their topology."""
    statistics: Statistics
    """State in which the courses run; times of segments hold for the state that they state."""

    def course(self, route: Route) -> Course:
        """Compile a route.

        Raises
        ------
        LayoutselError
            If a node is unknown, or a tensor never arrives where it is needed.
        """
        origin = self.made.topology.graph.origin
        steps = tuple(
            itertools.chain(
                map(self._segment, route.segments), map(self._transfer, route.transfers)
            )
        )
        made = {tensor for segment in route.segments for tensor in segment.outputs}
        outputs = [tensor for tensor in made if tensor.startswith("output.")]
        read = {copy[0] for step in steps for copy in step.reads}
        at_origin = {tensor for step in steps for tensor, node in step.writes if node == origin}
        course = Course(
            weight=route.weight,
            steps=steps,
            given=tuple((tensor, origin) for tensor in sorted(read - made)),
            results=frozenset((self._result(name, at_origin), origin) for name in outputs),
            sizes={**self._sizes, **{one.tensor: one.bytes for one in route.transfers}},
        )
        _check(course)
        return course

    def _result(self, output: str, at_origin: AbstractSet[str]) -> str:
        """Name under which an output of the model arrives: its own, or another of the tensor."""
        names = (output, *self._names.get(output, ()))
        return next((name for name in names if name in at_origin), output)

    @cached_property
    def _names(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the same tensor, by each name of an output of the model."""
        found: dict[str, tuple[str, ...]] = {}
        if (graph := self.made.graph) is None:
            return found
        for tensor in graph.tensors:
            outputs = [f"output.{use.input_index}" for use in tensor.uses if use.consumer is None]
            found |= dict.fromkeys(outputs, (graph.name(tensor), *outputs))
        return found

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        """Sizes of the tensors between atoms, bytes."""
        graph = self.made.graph
        return {graph.name(tensor): tensor.bytes for tensor in graph.tensors} if graph else {}

    def _segment(self, segment: Segment) -> CourseStep:
        node = segment.node
        if node not in self._nodes.values():
            raise LayoutselError(
                f"segment {segment.id!r}: got node {node!r}; "
                f"expected one of {', '.join(self._nodes.values())}"
            )
        plan = self.made.plans.get(self.made.classes.get(node, ""))
        us = segment.us * self.statistics.slowdown(node) / self.made.statistics.slowdown(node)
        return CourseStep(
            name=segment.id,
            phases=tuple(
                Resources(busy_us={f"{node}/{worker}" if worker else node: us * share})
                for worker, share in _workers(segment, plan)
            ),
            vertices=frozenset({node}),
            reads=tuple((tensor, node) for tensor in segment.inputs),
            writes=tuple((tensor, node) for tensor in segment.outputs),
            joules=0.0,
        )

    def _transfer(self, transfer: Transfer) -> CourseStep:
        way = self._messages.route(transfer.source, transfer.destination)
        return CourseStep(
            name=transfer.tensor,
            phases=tuple(
                replace(phase, busy_us={self._node(n): us for n, us in phase.busy_us.items()})
                for phase in way.resources(transfer.bytes)
            ),
            vertices=frozenset(way.vertices),
            reads=((transfer.tensor, transfer.source),),
            writes=((transfer.tensor, transfer.destination),),
            joules=way.nj_per_byte * transfer.bytes / 1e9,
        )

    def _node(self, resource: str) -> str:
        """Name of the node whose processor a resource is, or of the resource itself."""
        return self._nodes.get(resource, resource)

    @cached_property
    def _nodes(self) -> Mapping[str, str]:
        """Nodes by the name of their processor."""
        nodes = self.made.topology.computing
        return {self._messages.processor(node.id): node.id for node in nodes}

    @cached_property
    def _messages(self) -> MessageRoutes:
        return MessageRoutes(self.made.topology, self.statistics)


def _workers(segment: Segment, plan: Plan | None) -> Iterator[tuple[str, float]]:
    """Workers of a segment in order, each with its share of the time."""
    stages = {stage.name: stage for stage in plan.stages} if plan else {}
    workers = {atom: stages[atom].worker if atom in stages else "" for atom in segment.atoms}
    if plan is None or len(set(workers.values())) < 2:
        yield next(iter(workers.values()), ""), 1.0
        return
    costs = {subgraph.id: subgraph.cost_us for subgraph in plan.subgraphs}
    us = {atom: sum(costs[id_] for id_ in stages[atom].subgraphs) for atom in segment.atoms}
    for worker, atoms in itertools.groupby(segment.atoms, key=workers.__getitem__):
        yield worker, sum(us[atom] for atom in atoms) / sum(us.values())


def _check(course: Course) -> None:
    """Reject a course that never ends: a tensor does not arrive, or arrives twice."""
    counts = Counter(itertools.chain(course.given, *(step.writes for step in course.steps)))
    for (tensor, node), count in counts.items():
        if count > 1:
            raise LayoutselError(
                f"tensor {tensor!r} arrives {count} times at node {node!r}; expected it once"
            )
    if not course.results:
        raise LayoutselError("no segment makes an output of the model, such as 'output.0'")
    available = set[Copy]()
    waiting = [len(step.reads) for step in course.steps]
    arriving = [
        *course.given,
        *(copy for number in course.starters for copy in course.steps[number].writes),
    ]
    while arriving:
        copy = arriving.pop()
        available.add(copy)
        for number in course.readers.get(copy, ()):
            waiting[number] -= 1
            if not waiting[number]:
                arriving += course.steps[number].writes
    stuck = (course.steps[number] for number, count in enumerate(waiting) if count)
    needed = itertools.chain(*(step.reads for step in stuck), sorted(course.results))
    missing = next((copy for copy in needed if copy not in available), None)
    if missing is not None:
        tensor, node = missing
        raise LayoutselError(
            f"tensor {tensor!r} never arrives at node {node!r}; expected a transfer to it, or a "
            "segment there that makes it and waits for no later one"
        )
