"""Size of an ONNX graph with all functions expanded, computed without expanding them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto

from layoutsel.errors import InvalidModel, ModelTooLarge
from tvm_passes.limits import HINT, ImportLimits

_Key: TypeAlias = tuple[str, str, str]
"""Domain, name and overload of a function."""


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """Size of a list of nodes after the expansion of functions."""

    nodes: int
    """Number of nodes, including nested graphs and called functions."""
    depth: int
    """Nesting depth of functions and graphs."""


def check_expansion(model: ModelProto, where: str, limits: ImportLimits) -> None:
    """Reject a model with recursive functions, too many nodes or too deep nesting.

    Raises
    ------
    InvalidModel
        If a function calls itself.
    ModelTooLarge
        If a limit is exceeded.
    """
    counter = _Counter(model, where, limits)
    # Uncalled functions are checked as well: they may be recursive.
    for function in model.functions:
        counter.function(_key(function, function.name), 1)
    total = counter.expansion(model.graph.node, 0)
    if total.nodes > limits.nodes:
        raise ModelTooLarge(
            f"{where}: got {total.nodes:,} nodes with every function expanded; expected at most "
            f"{limits.nodes:,} (limit 'nodes'). {HINT}"
        )


def domain_of(item: NodeProto | OperatorSetIdProto | FunctionProto) -> str:
    """Return the domain, with ONNX's own in its short form."""
    return "" if item.domain == "ai.onnx" else item.domain


def nested_graphs(node: NodeProto) -> list[GraphProto]:
    """List the graphs in the attributes of a node."""
    return [
        graph
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
    ]


def _key(item: NodeProto | FunctionProto, name: str) -> _Key:
    return domain_of(item), name, item.overload


class _Counter:
    """Counter that measures each function once and looks up further calls."""

    def __init__(self, model: ModelProto, where: str, limits: ImportLimits) -> None:
        self._functions: Mapping[_Key, FunctionProto] = {
            _key(function, function.name): function for function in model.functions
        }
        self._where = where
        self._limits = limits
        self._known: dict[_Key, Expansion | None] = {}

    def expansion(self, nodes: Iterable[NodeProto], level: int) -> Expansion:
        """Measure `nodes` at nesting depth `level`."""
        count, depth = 0, 0
        for node in nodes:
            key = _key(node, node.op_type)
            inner = [self.function(key, level + 1)] if key in self._functions else []
            inner += [self.expansion(graph.node, level + 1) for graph in nested_graphs(node)]
            count += sum(part.nodes for part in inner) or 1
            depth = max(depth, *(part.depth + 1 for part in inner), 0)
        self._check_depth(level + depth)
        return Expansion(nodes=count, depth=depth)

    def function(self, key: _Key, level: int) -> Expansion:
        """Measure the body of a function called at nesting depth `level`."""
        self._check_depth(level)
        if key in self._known:
            known = self._known[key]
            if known is None:
                raise InvalidModel(
                    f"{self._where}: function {key[1]!r} of domain {key[0]!r} calls itself; "
                    f"expected functions without recursion. Export the model again"
                )
            self._check_depth(level + known.depth)
            return known
        self._known[key] = None
        found = self.expansion(self._functions[key].node, level)
        self._known[key] = found
        return found

    def _check_depth(self, level: int) -> None:
        if level > self._limits.depth:
            raise ModelTooLarge(
                f"{self._where}: got functions or graphs nested more than {self._limits.depth} "
                f"levels deep; expected at most that (limit 'depth'). {HINT}"
            )
