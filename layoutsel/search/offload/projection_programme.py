"""Programme of the projection: a device for each operation, and channels for each sent tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from layoutsel.planning.programme import Programme, Term
from layoutsel.search.offload.node_tensors import ProjectedNetwork, named_choice
from layoutsel.search.offload.settings import OffloadLimits, SelectorState
from layoutsel.search.offload.supernet_shape import SuperCell, SupernetShape
from layoutsel.search.offload.times import FIRST, SECOND, OffloadTimes
from layoutsel.search.offload.transmitted import PRECISIONS
from layoutsel.search.operations import NONE, SKIP
from layoutsel.search.space import Architecture
from tvm_passes.errors import LayoutselError

TIME_LIMIT_S = 60.0
"""Time limit of one programme, seconds; a fraction of a second is usual."""
COUNTS = 9
"""Most numbers of channels to choose from for a sent tensor, besides the likeliest one."""
_FLOOR = 1e-6
"""Least probability; logarithms stay finite."""
_OUT_OF_TIME = 1
"""Status of HiGHS at a time limit."""
_SENT_COST = 1e-4
"""Cost of a sent tensor, so that none is sent that nothing reads."""
_UNLIMITED = float("inf")


class ProjectionProgramme:
    """The programme for one precision of sent tensors, one transmission cell and one link.

    Parameters
    ----------
    shape, times, state, limits
        As in :func:`~layoutsel.search.offload.projection.project`.
    precision
        Precision of sent tensors.
    position
        Number of the transmission cell.
    link
        Number of the link.
    """

    def __init__(
        self,
        shape: SupernetShape,
        times: OffloadTimes,
        state: SelectorState,
        limits: OffloadLimits,
        precision: str,
        position: int,
        link: int = 0,
    ) -> None:
        self.shape, self.times, self.state = shape, times, state
        self.link, self.fixed_us = link, times.fixed_us(link)
        self.precision, self.limits = precision, limits
        self.programme = Programme()
        self.us: list[Term] = []
        self.bytes: list[Term] = []
        self.local: dict[tuple[int, int, int], int] = {}
        self.moved: dict[tuple[int, int, int], int] = {}
        self.counts: dict[str, list[tuple[int, int]]] = {}
        self.on_first: dict[tuple[int, int], int] = {}
        self.aliases: dict[tuple[int, int], int] = {}
        self.needs: dict[tuple[int, int], int] = {}
        self.shapes = dict(shape.sendable())
        self.solution: np.ndarray | None = None
        index = list(PRECISIONS).index(precision)
        self.position = position
        chosen = (state.precision[index], state.position[position], state.link[link])
        self.base = float(sum(_log(share) for share in chosen))
        self.bound = 0.0
        self._build()

    def _build(self) -> None:
        programme = self.programme
        always = programme.variables([0.0])
        programme.row([(always, 1.0)], 1.0, 1.0)
        self.on_first[0, 0] = always
        for c, cell in enumerate(self.shape.cells):
            for j in range(cell.cell.nodes + 1):
                if j > 0:
                    self.on_first[c, j] = programme.variables([0.0], integral=True)
                elif c > 0:
                    self.on_first[c, 0] = self.on_first[c - 1, self.shape.cells[c - 1].cell.nodes]
            self._operations(c, cell)
            self._nodes(c, cell)
            self._sums(c, cell)
        self._needs()
        if self.limits.us is not None:
            programme.row(self.us, -_UNLIMITED, self.limits.us - self.fixed_us)
        if self.limits.bytes is not None:
            programme.row(self.bytes, -_UNLIMITED, self.limits.bytes)

    def _operations(self, c: int, cell: SuperCell) -> None:
        """Add one operation with its device for each pair of nodes."""
        prices = self.times.cells[c].operations_us
        for p, (i, _) in enumerate(cell.pairs):
            for o, name in enumerate(cell.operations):
                if not cell.offered[p][o]:
                    continue
                likely = _log(self.state.operations[c][p, o])
                if name in (NONE, SKIP):
                    self.local[c, p, o] = self.programme.variables([-likely], integral=True)
                    continue
                for held, device, share in self._devices_of(c, p, o):
                    cost = -likely - _log(share)
                    held[c, p, o] = self.programme.variables([cost], integral=True)
                    self.us.append((held[c, p, o], float(prices[p, o, device])))
                # An operation of the first device reads nothing of the second.
                if (c, p, o) in self.local:
                    row = [(self.local[c, p, o], 1.0), (self.on_first[c, i], -1.0)]
                    self.programme.row(row, -_UNLIMITED, 0.0)
            self.programme.row(self._all(c, p), 1.0, 1.0)

    def _devices_of(
        self, c: int, p: int, o: int
    ) -> Iterator[tuple[dict[tuple[int, int, int], int], int, float]]:
        """Yield the devices that an operation may run on, with their variables and likelihoods."""
        first = float(self.state.resources[c][p, o]) if c == self.position else 1.0
        if c <= self.position:
            yield self.local, FIRST, first
        if c >= self.position:
            yield self.moved, SECOND, 1 - first if c == self.position else 1.0

    def _nodes(self, c: int, cell: SuperCell) -> None:
        """A node is on the first device exactly if all its inputs are there."""
        for j in range(1, cell.cell.nodes + 1):
            node = (self.on_first[c, j], 1.0)
            elsewhere: list[Term] = []
            for i in range(j):
                p, source = cell.pairs.index((i, j)), self.on_first[c, i]
                moved = self._moved(c, p)
                elsewhere += moved
                self.programme.row([node, *moved], -_UNLIMITED, 1.0)
                for skip in self._named(c, p, SKIP):
                    self.programme.row([node, (skip, 1.0), (source, -1.0)], -_UNLIMITED, 1.0)
                    passed = self.programme.variables([0.0], integral=True)
                    self.programme.row([(passed, 1.0), (skip, -1.0)], -_UNLIMITED, 0.0)
                    self.programme.row([(passed, 1.0), (source, 1.0)], -_UNLIMITED, 1.0)
                    elsewhere.append((passed, 1.0))
            self.programme.row([node, *elsewhere], 1.0, _UNLIMITED)

    def _sums(self, c: int, cell: SuperCell) -> None:
        """Add the number of inputs of each node, on each device."""
        prices = self.times.cells[c].sums_us
        for j in range(2, cell.cell.nodes + 1):
            pairs = [cell.pairs.index((i, j)) for i in range(j)]
            on = [self.programme.variables([0.0] * j, integral=True) for _ in (FIRST, SECOND)]
            for device in (FIRST, SECOND):
                self.us += [(on[device] + n, float(prices[n + 1, device])) for n in range(j)]
            node = [(on[FIRST] + n, 1.0) for n in range(j)]
            other = [(on[SECOND] + n, 1.0) for n in range(j)]
            self.programme.row([*node, (self.on_first[c, j], -1.0)], 0.0, 0.0)
            self.programme.row([*node, *other], 1.0, 1.0)
            number = [(v, float(n + 1)) for one in (node, other) for n, (v, _) in enumerate(one)]
            absent = [(none, 1.0) for p in pairs for none in self._named(c, p, NONE)]
            self.programme.row([*number, *absent], float(j), float(j))

    def _needs(self) -> None:
        """Add the tensors that are sent, and the numbers of their channels."""
        programme = self.programme
        for c, cell in enumerate(self.shape.cells):
            for j in range(1, cell.cell.nodes + 1):
                self.needs[c, j] = programme.variables([0.0], integral=True)
                self.aliases[c, j] = self._alias(c, cell, j)
        stem = programme.variables([0.0], integral=True)
        for c in range(len(self.shape.cells)):
            before = self.shape.cells[c - 1].cell.nodes
            self.needs[c, 0] = self.needs[c - 1, before] if c else stem
        for c, cell in enumerate(self.shape.cells):
            for j in range(1, cell.cell.nodes + 1):
                need, alias = self.needs[c, j], self.aliases[c, j]
                sent = self._sent(cell.node(j))
                programme.row([(sent, 1.0), (need, -1.0), (alias, 1.0)], 0.0, _UNLIMITED)
                earlier = self.needs[c, j - 1]
                row = [(earlier, 1.0), (need, -1.0), (alias, -1.0)]
                programme.row(row, -1.0, _UNLIMITED)
                for i in range(j):
                    self._reads(c, cell, (i, j))
            if c + 1 == len(self.shape.cells):
                last = cell.cell.nodes
                row = [(self.needs[c, last], 1.0), (self.on_first[c, last], -1.0)]
                programme.row(row, 0.0, _UNLIMITED)
        programme.row([(self._sent("stem"), 1.0), (stem, -1.0)], 0.0, _UNLIMITED)

    def _reads(self, c: int, cell: SuperCell, pair: tuple[int, int]) -> None:
        """Node `i` is needed if something on the second device reads it, and results likewise."""
        i, j = pair
        p = cell.pairs.index(pair)
        need, source, node = self.needs[c, i], self.on_first[c, i], self.on_first[c, j]
        row = [(need, 1.0), (source, -1.0), *((v, -1.0) for v, _ in self._moved(c, p))]
        self.programme.row(row, -1.0, _UNLIMITED)
        for skip in self._named(c, p, SKIP):
            row = [(need, 1.0), (source, -1.0), (skip, -1.0), (node, 1.0)]
            self.programme.row(row, -1.0, _UNLIMITED)
        made = [
            (v, -1.0)
            for (c_, p_, o), v in self.local.items()
            if (c_, p_) == (c, p) and cell.operations[o] not in (NONE, SKIP)
        ]
        sent = self._sent(cell.output(pair))
        self.programme.row([(sent, 1.0), *made, (node, 1.0)], 0.0, _UNLIMITED)

    def _alias(self, c: int, cell: SuperCell, j: int) -> int:
        """Add a variable that is 1 exactly if a skip is the node's only input."""
        alias = self.programme.variables([0.0], integral=True)
        needed = [self._named(c, cell.pairs.index((j - 1, j)), SKIP)]
        needed += [self._named(c, cell.pairs.index((i, j)), NONE) for i in range(j - 1)]
        for variables in needed:
            row = [(alias, 1.0), *((v, -1.0) for v in variables)]
            self.programme.row(row, -_UNLIMITED, 0.0)
        every = [(v, -1.0) for variables in needed for v in variables]
        self.programme.row([(alias, 1.0), *every], 1.0 - len(needed), _UNLIMITED)
        return alias

    def _sent(self, tensor: str) -> int:
        """Add a tensor that may be sent, with a number of channels; returns its variable."""
        channels, *axes = self.shapes[tensor]
        point = PRECISIONS[self.precision] * int(np.prod(axes))
        likely = _log(open_counts(self.state.channels[tensor])[1:])
        numbers = sorted(set(_counts(channels, int(np.argmax(likely)) + 1)))
        best = max(float(likely[n - 1]) for n in numbers)
        first = self.programme.variables([best - likely[n - 1] for n in numbers], integral=True)
        terms = list(enumerate(numbers, first))
        self.counts[tensor] = terms
        message = self.times.links[self.link].message
        self.us += [(v, message.at(n * point)) for v, n in terms]
        self.bytes += [(v, float(n * point)) for v, n in terms]
        sent = self.programme.variables([_SENT_COST], integral=True)
        self.programme.row([*((v, 1.0) for v, _ in terms), (sent, -1.0)], 0.0, 0.0)
        return sent

    def solve(self) -> bool:
        """Solve the programme; False if no network keeps the limits."""
        result = self.programme.minimised(time_limit_s=TIME_LIMIT_S)
        if result.x is None:
            if result.status == _OUT_OF_TIME:
                raise _out_of_time()
            return False
        self.solution = np.asarray(result.x)
        self.bound = self.base - float(result.mip_dual_bound)
        return True

    def least(self, what: str) -> float:
        """Least time or number of bytes of any network, whatever its probability."""
        relaxed = ProjectionProgramme(
            self.shape,
            self.times,
            self.state,
            OffloadLimits(),
            self.precision,
            self.position,
            self.link,
        ).programme
        terms: list[Term] = getattr(self, what)
        relaxed.objective = [0.0] * len(relaxed.objective)
        for variable, factor in terms:
            relaxed.objective[variable] += factor
        fixed = self.fixed_us if what == "us" else 0.0
        result = relaxed.minimised(time_limit_s=TIME_LIMIT_S)
        if result.x is None:
            raise _out_of_time()
        return fixed + float(result.fun)

    def network(self, gates: Callable[[str, np.ndarray], np.ndarray]) -> ProjectedNetwork:
        """Read the solution."""
        assert self.solution is not None
        value = self.solution > 0.5
        cells = [
            tuple(
                next(
                    name
                    for o, name in enumerate(cell.operations)
                    if any(
                        (c, p, o) in held and value[held[c, p, o]]
                        for held in (self.local, self.moved)
                    )
                )
                for p in range(len(cell.pairs))
            )
            for c, cell in enumerate(self.shape.cells)
        ]
        architecture = Architecture(channels=self.shape.channels, operations=tuple(cells))
        devices = self._devices(value)
        kept = {}
        for tensor, terms in self.counts.items():
            for variable, number in terms:
                if value[variable]:
                    order = np.argsort(-gates(tensor, self.state.channels[tensor]), kind="stable")
                    kept[tensor] = tuple(sorted(int(one) for one in order[:number]))
        used = np.array(self.programme.objective) @ value
        return ProjectedNetwork(
            choice=named_choice(
                self.shape,
                architecture,
                devices,
                kept,
                self.precision,
                self.times.links[self.link].name,
            ),
            us=self.fixed_us + sum(factor for v, factor in self.us if value[v]),
            bytes=sum(factor for v, factor in self.bytes if value[v]),
            score=self.base - float(used),
            bound=self.bound,
        )

    def _devices(self, value: np.ndarray) -> dict[str, int]:
        """Device of every part that the network may have."""
        devices = {"stem": FIRST, "head": SECOND}
        for c, cell in enumerate(self.shape.cells):
            for p, pair in enumerate(cell.pairs):
                is_moved = any(value[v] for v, _ in self._moved(c, p))
                devices[cell.output(pair)] = SECOND if is_moved else FIRST
            for j in range(1, cell.cell.nodes + 1):
                devices[cell.node(j)] = FIRST if value[self.on_first[c, j]] else SECOND
        return devices

    def _all(self, c: int, p: int) -> list[Term]:
        return [
            (v, 1.0)
            for held in (self.local, self.moved)
            for (c_, p_, _), v in held.items()
            if (c_, p_) == (c, p)
        ]

    def _moved(self, c: int, p: int) -> list[Term]:
        return [(v, 1.0) for (c_, p_, _), v in self.moved.items() if (c_, p_) == (c, p)]

    def _named(self, c: int, p: int, name: str) -> list[int]:
        """Variables of an operation of a pair; none if it is not offered."""
        names = self.shape.cells[c].operations
        return [
            v for (c_, p_, o), v in self.local.items() if (c_, p_) == (c, p) and names[o] == name
        ]


def _out_of_time() -> LayoutselError:
    return LayoutselError(
        f"the projection found no network in {TIME_LIMIT_S:g} s; offer fewer operations"
    )


def open_counts(gates: np.ndarray) -> np.ndarray:
    """Probability of each number of open gates, from 0 on, if they are independent."""
    counts = np.ones(1)
    for gate in gates:
        counts = np.append(counts * (1 - gate), 0.0) + np.append(0.0, counts * gate)
    return counts


def _counts(channels: int, likely: int) -> list[int]:
    """Numbers of channels to choose from: few ones, the most likely one, and all."""
    numbers = np.unique(np.geomspace(1, channels, COUNTS).round().astype(int))
    return [*numbers.tolist(), likely]


def _log(probability: np.ndarray | float) -> Any:
    """Logarithm of a number or an array."""
    return np.log(np.maximum(probability, _FLOOR))
