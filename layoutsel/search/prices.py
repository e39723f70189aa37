"""Prices of the parts of a search space: times by the compiler that deploys what is found.

Each signature is a branch of one catalogue, which is imported, partitioned and priced for every
machine class as a model to deploy would be. The price of a signature is the least sum of its
branch's sub-graphs and the boundaries between them. Layouts of its inputs and outputs are free: a
plan of a whole network, which may fuse more and must convert layouts, differs by the slack
(:mod:`layoutsel.search.slack`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from layoutsel import documents
from layoutsel.cluster.classes import MachineClass, problem_of_class
from layoutsel.compile.options import Options
from layoutsel.documents.saved import Fault, SavedDocument
from layoutsel.planning.objectives import decide
from layoutsel.planning.problem import Option, PlanningProblem
from layoutsel.planning.values import SUM as SUM_OF_TIMES
from layoutsel.search.networks import write_catalogue
from layoutsel.search.parts import PartSignature
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import LayoutselError

_LOG = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Version of files of prices."""
_LEAST_BYTES = 500_000.0
"""Bytes of weights that stay in the caches of every machine of use."""


class UnpricedPart(LayoutselError):
    """A part without a price on some class of machines."""


@dataclass(frozen=True, kw_only=True)
class ClassPrices:
    """Prices on one class of machines."""

    us: Mapping[str, float]
    """Time by signature, microseconds."""
    spread_us: Mapping[str, float]
    """Uncertainty of `us`, microseconds."""
    shared_spread: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Relative uncertainty that all times have in common."""


@dataclass(frozen=True, kw_only=True)
class PriceTable(SavedDocument):
    """Prices of parts by class of machines."""

    VERSIONS = (SCHEMA_VERSION,)
    ADVICE = "Price the search space again"

    schema_version: int = SCHEMA_VERSION
    """Version of the file format."""
    classes: Mapping[str, ClassPrices]
    """Prices by name of a class."""

    def us(self, signature: PartSignature, name: str) -> float:
        """Time of a part on a class of machines, microseconds.

        Raises
        ------
        UnpricedPart
            If the class, or the part on it, has no price.
        """
        return self._value(signature, name, self._of(name).us)

    def spread_us(self, signature: PartSignature, name: str) -> float:
        """Uncertainty of :meth:`us`, microseconds."""
        return self._value(signature, name, self._of(name).spread_us)

    def shared_spread(self, name: str) -> float:
        """Relative uncertainty that the times on a class have in common."""
        return self._of(name).shared_spread

    def merged(self, other: PriceTable) -> PriceTable:
        """Copy with the prices of another table added; its prices replace equal ones."""
        found = dict(self.classes)
        for name, more in other.classes.items():
            own = found.get(name, ClassPrices(us={}, spread_us={}))
            found[name] = ClassPrices(
                us={**own.us, **more.us},
                spread_us={**own.spread_us, **more.spread_us},
                shared_spread=max(own.shared_spread, more.shared_spread),
            )
        return replace(self, classes=found)

    def faults(self) -> Iterator[Fault]:
        """Yield prices that are no times."""
        for name, prices in self.classes.items():
            for kind, held in (("us", prices.us), ("spread_us", prices.spread_us)):
                for key, value in held.items():
                    if value < 0:
                        yield f"$.classes.{name}.{kind}.{key}", f"{value:g}", "0 or more"
            for key in prices.us.keys() ^ prices.spread_us.keys():
                yield f"$.classes.{name}", f"only one of time and spread of {key!r}", "both"

    def _of(self, name: str) -> ClassPrices:
        if name not in self.classes:
            raise UnpricedPart(
                f"no prices for the machine class {name!r}: got those of "
                f"{', '.join(self.classes) or 'none'}. Price the space for this topology"
            )
        return self.classes[name]

    def _value(self, signature: PartSignature, name: str, held: Mapping[str, float]) -> float:
        if str(signature) not in held:
            raise UnpricedPart(
                f"no price of {signature} on the machine class {name!r}. Price the space that has "
                "this part"
            )
        return held[str(signature)]


def price_parts(
    signatures: Iterable[PartSignature],
    classes: Sequence[MachineClass],
    options: Options | None = None,
    *,
    network_bytes: float = 0.0,
) -> PriceTable:
    """Price parts on every class of machines.

    Parameters
    ----------
    signatures
        Parts to price; equal ones once.
    classes
        Classes of machines, see :func:`layoutsel.cluster.classes.machine_classes`.
    options
        Options of planning, such as the source of costs.
    network_bytes
        Bytes of the weights of a large network of the space. Catalogues have no more, because
        weights of larger models do not stay in caches.

    Raises
    ------
    LayoutselError
        If a part cannot be planned for a class; names the class.
    """
    portions = list(_portions(sorted(set(signatures)), max(network_bytes, _LEAST_BYTES)))
    found = PriceTable(classes={})
    for one in classes:
        for portion in portions:
            _LOG.info("pricing %d parts for %s", len(portion), one.name)
            prices = _prices(portion, one, options or Options())
            found = found.merged(PriceTable(classes={one.name: prices}))
    return found


def _portions(
    signatures: Sequence[PartSignature], most_bytes: float
) -> Iterator[list[PartSignature]]:
    """Divide signatures into catalogues of at most so many bytes of weights."""
    portion: list[PartSignature] = []
    held = 0
    for signature in signatures:
        if portion and held + signature.weight_bytes > most_bytes:
            yield portion
            portion, held = [], 0
        portion.append(signature)
        held += signature.weight_bytes
    if portion:
        yield portion


def _prices(
    signatures: Sequence[PartSignature], machine_class: MachineClass, options: Options
) -> ClassPrices:
    model = write_catalogue(signatures)
    _, problem = problem_of_class(model, machine_class, options)
    chosen = [_best(branch) for branch in branches_of(problem, signatures)]
    keys = [str(signature) for signature in signatures]
    costs = [us for us, _ in chosen]
    spreads = [sum(option.spread_us**2 for option in options_of) ** 0.5 for _, options_of in chosen]
    return ClassPrices(
        us=dict(zip(keys, costs, strict=True)),
        spread_us=dict(zip(keys, spreads, strict=True)),
        shared_spread=problem.shared_spread,
    )


def branches_of(
    problem: PlanningProblem, signatures: Sequence[PartSignature]
) -> Iterator[PlanningProblem]:
    """Yield the planning problem of each signature's branch, without its inputs and outputs."""
    first = 0
    branch_of_input = {}
    for number, signature in enumerate(signatures):
        for index in range(first, first + signature.inputs):
            branch_of_input[index] = number
        first += signature.inputs
    branch: dict[SubgraphId, int] = {}
    # Producers come before consumers, so that one pass is enough.
    position = {node.id: number for number, node in enumerate(problem.nodes)}
    tensors = sorted(
        problem.tensors, key=lambda t: -1 if t.producer is None else position[t.producer]
    )
    for tensor in tensors:
        source = tensor.producer
        number = branch_of_input[tensor.output_index] if source is None else branch[source]
        for use in tensor.uses:
            if use.consumer is not None:
                branch[use.consumer] = number
    for number in range(len(signatures)):
        held = {id_ for id_, one in branch.items() if one == number}
        inner = []
        for tensor in problem.tensors:
            uses = tuple(use for use in tensor.uses if use.consumer in held)
            if tensor.producer in held and uses:
                inner.append(replace(tensor, uses=uses))
        yield replace(
            problem,
            nodes=tuple(node for node in problem.nodes if node.id in held),
            tensors=tuple(inner),
            objective=SUM_OF_TIMES,
            limits={},
        )


def _best(branch: PlanningProblem) -> tuple[float, list[Option]]:
    """Find the least time of a branch, with the candidates that take it."""
    if not branch.nodes:
        return 0.0, []
    decisions = decide(branch).solution.decisions
    chosen = [node.option(decisions[node.id]) for node in branch.nodes]
    return branch.cost(decisions).total_us, chosen
