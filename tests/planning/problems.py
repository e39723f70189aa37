"""Planning problems for tests: random ones, ones shaped like real networks, and a brute-force solver."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from hypothesis import strategies as st

from layoutsel.cost.place import HOST
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.planning.prices import price_all
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.devices import DeviceId

LAYOUTS = ("NCHW", "NHWC", "NCHW16c")
UNITS = ("cpu", "onednn")


def option(unit: str, layout: str, cost: float, *, inputs: int = 1, outputs: int = 1) -> Option:
    """An option of a unit, which may be on another device than its first, such as ``cuda@1``."""
    return Option(
        decision=Decision.parse(f"{unit}:{layout}"),
        cost_us=cost,
        in_layouts=(layout,) * inputs,
        out_layouts=(layout,) * outputs,
    )


Price = Callable[[Tensor, str, str], float]
"""(tensor, source, destination) → microseconds."""


def _no_copy(tensor: Tensor, source: str, destination: str) -> float:
    raise AssertionError(f"a copy of {tensor.name} from {source} to {destination}")


def price_tensors(
    tensors: Iterable[Tensor],
    nodes: Iterable[PricedSubgraph],
    transform_us: Price,
    crossing_us: Price,
    copy_us: Price = _no_copy,
) -> tuple[Tensor, ...]:
    """Fill in the boundary prices with a function for each kind, of tensor, source and destination.

    `transform_us` is asked about layouts, `crossing_us` about units of one memory, `copy_us` about memories.
    """
    ask = {"transform": transform_us, "crossing": crossing_us, "copy": copy_us}
    return price_all(
        tensors,
        nodes,
        lambda unpriced: [ask[b.kind](b.tensor, *b.names) for b in unpriced],
    )


def graph_problem(
    parents: list[list[int]],
    rng: random.Random,
    *,
    layouts: tuple[str, ...] = LAYOUTS,
    units: tuple[str, ...] = UNITS,
    scale: float = 40.0,
    operators: tuple[str, ...] = ("nn.conv2d",),
) -> PlanningProblem:
    """A problem over a DAG: ``parents[i]`` are the nodes that node i reads (-1 is the model's input).

    Nodes that nobody reads are outputs of the model.
    """
    ids = [SubgraphId(f"s{i}") for i in range(len(parents))]
    nodes = []
    for id_, sources in zip(ids, parents, strict=True):
        base = rng.uniform(0.5, 4.0) * scale
        options = tuple(
            option(unit, layout, base * rng.uniform(1.0, 2.5), inputs=len(sources))
            for unit in units
            for layout in layouts
        )
        nodes.append(
            PricedSubgraph(id=id_, options=options, operators=operators, names=(f"op_{id_}",))
        )
    uses: dict[int, list[TensorUse]] = {i: [] for i in range(-1, len(parents))}
    for i, sources in enumerate(parents):
        for position, source in enumerate(sources):
            uses[source].append(TensorUse(consumer=ids[i], input_index=position))
    outputs = [i for i in range(len(parents)) if not uses[i]]
    for position, i in enumerate(outputs):
        uses[i].append(TensorUse(consumer=None, input_index=position))
    tensors = [
        Tensor(
            producer=None if i < 0 else ids[i],
            output_index=0,
            uses=tuple(used),
            shape=(1, 64, 28, 28),
            bytes=rng.randrange(10_000, 1_000_000),
        )
        for i, used in uses.items()
        if used
    ]
    priced = price_tensors(
        tensors,
        nodes,
        lambda tensor, *_: scale * (0.1 + tensor.bytes / 1e6) * rng.uniform(0.8, 1.2),
        lambda _, source, __: 0.5 if source == HOST else rng.uniform(0.5, 3.0),
        lambda tensor, *_: scale * (0.05 + tensor.bytes / 2e6) * rng.uniform(0.8, 1.2),
    )
    return PlanningProblem(
        nodes=tuple(nodes), tensors=priced, model_name="random", model_hash="abc"
    )


def random_parents(count: int, rng: random.Random, *, reach: int, most: int = 3) -> list[list[int]]:
    """Each node reads one to `most` of the `reach` nodes before it; sometimes one of them twice."""
    parents: list[list[int]] = [[-1]]
    for i in range(1, count):
        pool = range(max(-1, i - reach), i)
        parents.append([rng.choice(pool) for _ in range(rng.randint(1, most))])
    return parents


def _units(most: int) -> list[tuple[str, ...]]:
    """Units of one memory or of several, at most `most` of them."""
    some = (UNITS[:1], UNITS, ("cpu", "opencl"), ("cpu", "onednn", "opencl"), ("opencl", "cuda"))
    return [units for units in some if len(units) <= most]


@st.composite
def small_problems(draw: st.DrawFn) -> PlanningProblem:
    """Up to six sub-graphs with up to four candidates: brute force takes milliseconds."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 6))
    parents = random_parents(count, rng, reach=draw(st.integers(1, count)))
    layouts = LAYOUTS[: draw(st.integers(1, 3))]
    units = draw(st.sampled_from(_units(4 // len(layouts))))
    scale = draw(st.sampled_from([1.0, 5.0, 40.0]))
    problem = graph_problem(parents, rng, layouts=layouts, units=units, scale=scale)
    return mixed(problem, rng, layouts, scale) if draw(st.booleans()) else problem


def mixed(
    problem: PlanningProblem, rng: random.Random, layouts: tuple[str, ...], scale: float
) -> PlanningProblem:
    """The problem where options mix layouts over their inputs and outputs, and some tensors leave the model too."""

    def shuffle(these: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(rng.choice(layouts) for _ in these)

    nodes = tuple(
        replace(
            node,
            options=tuple(
                replace(o, in_layouts=shuffle(o.in_layouts), out_layouts=shuffle(("",) * 2))
                for o in node.options
            ),
        )
        for node in problem.nodes
    )
    tensors = []
    for tensor in problem.tensors:
        uses = tensor.uses + (TensorUse(consumer=None, input_index=9),) * rng.choice((0, 1))
        second = tuple(use for use in uses if tensor.producer and rng.random() < 0.3)
        first = tuple(use for use in uses if use not in second)
        tensors.append(replace(tensor, uses=first))
        tensors.append(replace(tensor, uses=second, output_index=int(tensor.producer is not None)))
    priced = price_tensors(
        [tensor for tensor in tensors if tensor.uses],
        nodes,
        lambda *_: scale * rng.uniform(0.0, 1.0),
        lambda *_: rng.choice((0.0, 1.0, scale)),
        lambda *_: rng.choice((0.0, 1.0, 2 * scale)),
    )
    return replace(problem, nodes=nodes, tensors=priced)


def brute_force(problem: PlanningProblem) -> float:
    """Cost of the best plan, by pricing all of them with :meth:`PlanningProblem.cost`."""
    ids = [node.id for node in problem.nodes]
    decisions = [[o.decision for o in node.options] for node in problem.nodes]
    return min(
        problem.cost(dict(zip(ids, choice, strict=True))).total_us
        for choice in itertools.product(*decisions)
    )


def chain_of_blocks(blocks: int, branches: int, depth: int) -> list[list[int]]:
    """Inception-like: every block is `branches` chains of up to `depth`, joined by one node."""
    parents: list[list[int]] = [[-1]]
    for _ in range(blocks):
        root, ends = len(parents) - 1, []
        for branch in range(branches):
            last = root
            for _ in range(1 + branch % depth):
                parents.append([last])
                last = len(parents) - 1
            ends.append(last)
        parents.append(ends)
    return parents


def residual_chain(blocks: int) -> list[list[int]]:
    """ResNet-like: three nodes a block, the third also reads the block's input."""
    parents: list[list[int]] = [[-1]]
    for _ in range(blocks):
        root = len(parents) - 1
        parents += [[root], [root + 1], [root + 2, root]]
    return parents


def dense_blocks(blocks: int, layers: int, *, flat: bool) -> list[list[int]]:
    """DenseNet-like: concatenations of everything before, as chains of pairs or (`flat`) of all at once."""
    parents: list[list[int]] = [[-1]]
    for _ in range(blocks):
        features = [len(parents) - 1]
        concat = features[0]
        for _ in range(layers):
            parents += [[concat], [len(parents)]]
            made = len(parents) - 1
            features.append(made)
            parents.append(list(features) if flat else [concat, made])
            concat = len(parents) - 1
        parents.append([concat])
    return parents


def twinned(
    problem: PlanningProblem, count: int, between_us: float | None = None
) -> PlanningProblem:
    """`problem` with `count` OpenCL devices like its one; copies between them take the host where no price is given."""
    nodes = tuple(
        replace(node, options=tuple(t for o in node.options for t in _twins(o, count)))
        for node in problem.nodes
    )

    def copy_us(tensor: Tensor, source: str, destination: str) -> float:
        ends = [end.partition("/")[0] for end in (source, destination)]
        if ends[0] != ends[1]:
            return tensor.copy_us[ends[0], ends[1]]
        back = tensor.copy_us.get((ends[0], HOST), 5.0), tensor.copy_us.get((HOST, ends[1]), 5.0)
        return sum(back) if between_us is None else between_us

    priced = price_tensors(
        problem.tensors,
        nodes,
        lambda tensor, *pair: tensor.transform_us[pair],
        lambda tensor, *pair: tensor.crossing_us[pair],
        copy_us,
    )
    return replace(problem, nodes=nodes, tensors=priced)


def _twins(one: Option, count: int) -> list[Option]:
    if one.decision.unit != "opencl":
        return [one]
    devices = (DeviceId("", "opencl", index) for index in range(count))
    return [replace(one, decision=one.decision.on(device)) for device in devices]


def tensors_between(ids, parents):
    """Tensors, not priced, of sub-graphs `ids` that each read the results of `parents`; -1 is the model's input.

    The model returns the result of the last one.
    """
    uses: dict[int, list[TensorUse]] = {i: [] for i in range(-1, len(parents))}
    for i, sources in enumerate(parents):
        for position, source in enumerate(sources):
            uses[source].append(TensorUse(consumer=ids[i], input_index=position))
    uses[len(parents) - 1].append(TensorUse(consumer=None, input_index=0))
    return [
        Tensor(producer=ids[i] if i >= 0 else None, output_index=0, uses=tuple(used), shape=(1,))
        for i, used in uses.items()
    ]
