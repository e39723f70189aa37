"""What there is to tune in models: the CPU's sub-graphs in each of its layouts, equal ones once."""

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
from tvm_passes.decision import Decision
from tvm_passes.rewrite_layouts import decide_function
from tvm_passes.tunable import Tunable, tunable

_FLOP_PER_BYTE = 10
"""About where CPUs stand between computing and moving data; orders tasks, decides nothing else."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One function to tune."""

    name: str
    """For people: where it occurs first, its anchor and layout."""
    module: tvm.IRModule
    """What is tuned, and what its records are kept under."""
    flops: float
    """Floating-point operations of one run."""
    occurrences: int
    """Sub-graphs of all models that it would serve."""
    weight: float
    """Estimated share of the models' time, in no unit."""


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


def gather_tasks(models: Iterable[Partitioned]) -> tuple[Task, ...]:
    """Collect the distinct tasks of models, in descending order of weight."""
    found: dict[int, list[Task]] = {}
    for model in models:
        for task in _tasks(model):
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


def _tasks(model: Partitioned) -> Iterator[Task]:
    """Yield the tasks of one model, equal sub-graphs counted together."""
    equal: dict[str, list[Subgraph]] = {}
    for subgraph in model.graph.subgraphs:
        equal.setdefault(subgraph.structural_hash, []).append(subgraph)
    for first, *others in equal.values():
        function = model.functions[first.id]
        for layout in layouts_of(first):
            decision = Decision(unit="cpu", layout=layout, algorithm=ALGORITHM.name)
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
