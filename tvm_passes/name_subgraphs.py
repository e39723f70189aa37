"""Stage 1: sub-graph ids that stay when a layer is inserted elsewhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar

from tvm_passes.arrays import array_of
from tvm_passes.decision import SubgraphId
from tvm_passes.ir import Constant, Expr, ModulePass, main_bindings, op_name
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.rewrite_layouts import subgraph_id
from tvm_passes.short_name import short_name

RESERVED = frozenset({"input", "output"})
"""Names of a model's inputs and outputs in plans, which sub-graphs must not use."""

_SAMPLES = 64
"""Number of a weight's elements that its digest covers."""

_DROPPED_BITS = 19
"""Low bits of a float32 that the digest ignores: folded weights differ in them between machines."""


def structural_hash(function: relax.Function) -> str:
    """Hash of the computation of a sub-graph function, without its id and names."""
    anonymous = function.without_attr("layoutsel.subgraph")
    return f"{tvm_ffi.structural_hash(anonymous, map_free_vars=True) & (2**64 - 1):016x}"


def subgraph_calls(module: tvm.IRModule) -> Iterator[relax.VarBinding]:
    """Yield the bindings of `main` that call a sub-graph, in order of execution."""
    for binding in main_bindings(module["main"]):
        value = binding.value
        called = value.op if isinstance(value, Call) else None
        if isinstance(called, GlobalVar) and subgraph_id(module[called]) is not None:
            yield binding


def own_bindings(function: relax.Function) -> list[relax.VarBinding]:
    """Return the bindings of a sub-graph function without the dequantisations at its beginning."""
    bindings = main_bindings(function)
    for position, binding in enumerate(bindings):
        if op_name(binding.value) != "dequantize":
            return bindings[position:]
    return bindings


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The model that a module was imported from."""

    layers: Mapping[str, str] = field(default_factory=dict)
    """Name of the layer of each binding that has one, by the name of the binding."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Name of the node of each binding, by the name of the binding; it may be only a number."""


@dataclass(frozen=True)
class _Description:
    """Parts of a sub-graph's id."""

    layer: str
    """Short name of its layer; empty if unknown."""
    operator: str
    """Name of its anchor, or of its first operator."""
    digest: str
    """Hash of its content."""


def stable_ids(module: tvm.IRModule, sources: Sources) -> list[SubgraphId]:
    """Return the ids of the sub-graphs in order of execution; see :class:`NameSubgraphs`."""
    calls = (binding.value for binding in subgraph_calls(module))
    described = [_describe(module[call.op], call, sources) for call in calls]
    uses = Counter(one.layer for one in described if one.layer)
    ids: dict[SubgraphId, None] = {}
    for one in described:
        is_unique = uses[one.layer] == 1 and one.layer not in RESERVED
        base = one.layer if is_unique else f"{one.layer or one.operator}_{one.digest}"
        ids[_numbered(base, ids)] = None
    return list(ids)


def _describe(function: relax.Function, call: Call, sources: Sources) -> _Description:
    """Return the parts of one sub-graph's id."""
    own = own_bindings(function)
    names = [binding.var.name for binding in own]
    anchor = str(function.attrs["layoutsel.anchor"])
    operator = op_name(own[0].value) if anchor in ("elementwise", "movement") else anchor
    arguments = call.args[int(function.attrs["layoutsel.num_activations"]) :]
    weights = [argument for argument in arguments if isinstance(argument, Constant)]
    values = [_some_values(weight) for weight in weights]
    # Weights distinguish equal layers at any position; for other sub-graphs, only the source can.
    apart = values or [_first(names, sources.nodes).encode()]
    return _Description(
        layer=short_name(_first(names, sources.layers)),
        operator=operator.removeprefix("nn."),
        digest=_hash([structural_hash(function).encode(), *apart], 3),
    )


def _first(names: Iterable[str], found: Mapping[str, str]) -> str:
    """Return the value of the first of `names` that has one, or an empty text."""
    return next((found[name] for name in names if name in found), "")


def _some_values(weight: Constant) -> bytes:
    """Return leading bits of evenly spaced elements, without loading a whole weight from disk."""
    flat = array_of(weight).reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        some = flat[:: max(1, flat.size // _SAMPLES)][:_SAMPLES].astype("float32")
    return (some.view("uint32") >> np.uint32(_DROPPED_BITS)).astype("<u2").tobytes()


def _hash(parts: Sequence[bytes], size: int) -> str:
    """Return a hash of `size` bytes in hexadecimal digits."""
    return hashlib.blake2b(b"|".join(parts), digest_size=size).hexdigest()


def _numbered(base: str, taken: Mapping[SubgraphId, None]) -> SubgraphId:
    """Return `base`, with a number if it is taken."""
    number, id_ = 1, base
    while id_ in taken:
        number += 1
        id_ = f"{base}_{number}"
    return SubgraphId(id_)


class _Naming(MainRewriter):
    def __init__(self, module: tvm.IRModule, sources: Sources) -> None:
        super().__init__(module, keep=lambda function: subgraph_id(function) is None)
        calls = subgraph_calls(module)
        self.ids = {
            binding.var: id_
            for binding, id_ in zip(calls, stable_ids(module, sources), strict=True)
        }
        """New id of the sub-graph that computes a variable."""

    def rewrite(self, binding: relax.VarBinding) -> Expr:
        id_ = self.ids.get(binding.var)
        if id_ is None:
            return self.copy(binding)
        call = binding.value
        function = self.module[call.op].with_attr("layoutsel.subgraph", id_)
        callee = self.builder.add_func(function, f"subgraph_{id_}")
        arguments = [self.renewed(argument) for argument in call.args]
        return self.builder.emit(Call(callee, arguments), binding.var.name)


@tvm.transform.module_pass(opt_level=0, name="NameSubgraphs")
@dataclass(frozen=True)
class NameSubgraphs(ModulePass):
    """Replace the numbers of sub-graphs by ids that stay when a layer is inserted elsewhere.

    ``s1(s0(x, w))`` → ``head_softmax(conv2d_3f2a9c(x, w))``.

    The id of a sub-graph is the name of its layer. Without a name it is the operator and a hash: of
    the computation and of the weights, or of the source node if there are no weights. The hash also
    follows a name that several sub-graphs share. Indistinguishable sub-graphs are numbered in order
    of execution: ``max_pool2d_07c1e2``, ``max_pool2d_07c1e2_2``.

    *Requires* a partitioned module (:class:`tvm_passes.partition.PartitionSubgraphs`), each of
    whose sub-graphs is called once. *Ensures* the same values. Ids are unique, equal in every
    process, and contain only letters, digits and underscores.
    """

    sources: Sources = field(default_factory=Sources)
    """Source names; none for a module that was not imported."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Name the sub-graphs of `module`."""
        return _Naming(module, self.sources).run()
