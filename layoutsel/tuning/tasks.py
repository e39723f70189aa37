"""Tuning tasks of models: distinct sub-graphs of a unit in each of their layouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import tvm
import tvm_ffi

from layoutsel.building.functions import Functions
from layoutsel.cost.graph import Graph, Subgraph
from layoutsel.model import ImportedModel
from layoutsel.units.layouts import layouts_of
from tvm_passes.algorithms.tuned import ALGORITHM
from tvm_passes.decided_functions import decide_function
from tvm_passes.decision import Decision
from tvm_passes.tunable import Tunable, tunable
from tvm_passes.units.entry import HOST_UNIT

_FLOP_PER_BYTE = 10
"""Approximate balance of computing and moving data on CPUs, used only to order tasks."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One function to tune."""

    name: str
    """Model, sub-graph, anchor and layout of the first occurrence, for messages."""
    module: tvm.IRModule
    """Function to tune; records are stored under it."""
    flops: float
    """Floating-point operations of one run."""
    occurrences: int
    """Number of equal sub-graphs in all models."""
    weight: float
    """Estimated share of the models' time, without a unit."""


class Partitioned(Protocol):
    """A partitioned model, such as a session."""

    @property
    def model(self) -> ImportedModel:
        """Network before its partition."""
        ...

    @property
    def graph(self) -> Graph:
        """Sub-graphs."""
        ...

    @property
    def functions(self) -> Functions:
        """Code of the sub-graphs."""
        ...


def gather_tasks(models: Iterable[Partitioned], unit: str = HOST_UNIT) -> tuple[Task, ...]:
    """Collect the distinct tasks of models on a unit, in descending order of weight."""
    found: dict[int, list[Task]] = {}
    for model in models:
        for task in _tasks(model, unit):
            bucket = found.setdefault(tvm_ffi.structural_hash(task.module), [])
            for position, known in enumerate(bucket):
                if tvm_ffi.structural_equal(known.module, task.module):
                    bucket[position] = replace(
                        known,
                        occurrences=known.occurrences + task.occurrences,
                        weight=known.weight + task.weight,
                    )
                    break
            else:
                bucket.append(task)
    tasks = [task for bucket in found.values() for task in bucket]
    return tuple(sorted(tasks, key=lambda task: -task.weight))


def _tasks(model: Partitioned, unit: str) -> Iterator[Task]:
    """Yield the tasks of one model, with equal sub-graphs merged."""
    equal: dict[str, list[Subgraph]] = {}
    for subgraph in model.graph.subgraphs:
        equal.setdefault(subgraph.structural_hash, []).append(subgraph)
    for first, *others in equal.values():
        function = model.functions[first.id]
        for layout in layouts_of(first):
            decision = Decision(unit=unit, layout=layout, algorithm=ALGORITHM.name)
            task = tunable(decide_function(function, decision))
            if isinstance(task, Tunable):
                count = 1 + len(others)
                yield Task(
                    name=f"{model.model.name} {first.id} {first.anchor} {layout}",
                    module=task.module,
                    flops=first.flops,
                    occurrences=count,
                    weight=count * max(first.flops, _FLOP_PER_BYTE * first.nbytes),
                )
