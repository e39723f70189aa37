"""Size of an ONNX graph once its functions are expanded, found without expanding them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto

from layoutsel.errors import InvalidModel, ModelTooLarge
from tvm_passes.limits import HINT, ImportLimits

_Key: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """Measure of a list of nodes."""

    nodes: int
    """Nodes in it, in its nested graphs and in the functions that it calls."""
    depth: int
    """Levels of functions and nested graphs."""


def check_expansion(model: ModelProto, where: str, limits: ImportLimits) -> None:
    """Refuse a model whose functions call themselves, or that has too many nodes or levels.

    Raises
    ------
    InvalidModel
        If a function calls itself.
    ModelTooLarge
        If a limit is exceeded.
    """
    counter = _Counter(model, where, limits)
    # Functions that nothing calls are looked at too: they may call themselves.
    for function in model.functions:
        counter.function(_key(function, function.name), 1)
    total = counter.expansion(model.graph.node, 0)
    if total.nodes > limits.nodes:
        raise ModelTooLarge(
            f"{where}: got {total.nodes:,} nodes with every function expanded; expected at most {limits.nodes:,} "
            f"(limit 'nodes'). {HINT}"
        )


def domain_of(item: NodeProto | OperatorSetIdProto | FunctionProto) -> str:
    """Domain with ONNX's own in its short form."""
    return "" if item.domain == "ai.onnx" else item.domain


def nested_graphs(node: NodeProto) -> list[GraphProto]:
    """Graphs inside a node's attributes."""
    return [
        graph
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
    ]


def _key(item: NodeProto | FunctionProto, name: str) -> _Key:
    return domain_of(item), name, item.overload


class _Counter:
    """Counts each function once; the expansion of a call is looked up."""

    def __init__(self, model: ModelProto, where: str, limits: ImportLimits) -> None:
        self._functions: Mapping[_Key, FunctionProto] = {
            _key(function, function.name): function for function in model.functions
        }
        self._where = where
        self._limits = limits
        self._known: dict[_Key, Expansion | None] = {}

    def expansion(self, nodes: Iterable[NodeProto], level: int) -> Expansion:
        """Measure `nodes`, which stand `level` levels deep."""
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
        """Measure the body of a function that is called `level` levels deep."""
        self._check_depth(level)
        if key in self._known:
            known = self._known[key]
            if known is None:
                raise InvalidModel(
                    f"{self._where}: function {key[1]!r} of domain {key[0]!r} calls itself; expected functions "
                    f"without recursion. Export the model again"
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
                f"{self._where}: got functions or graphs nested more than {self._limits.depth} levels deep; expected "
                f"at most that (limit 'depth'). {HINT}"
            )
