"""Versions that determine the cost of candidates, by scope (:mod:`layoutsel.cost.scopes`)."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path

import tvm_passes
from layoutsel.compile.code_digest import ALL, Code, Definition
from layoutsel.compile.kept_digests import kept_digests
from layoutsel.cost import scopes
from layoutsel.device.machine import versions
from tvm_passes.algorithms import ALGORITHMS, Algorithm
from tvm_passes.backends import BACKENDS, Backend, own_backends
from tvm_passes.deferred import defining_module
from tvm_passes.layouts import LAYOUTS
from tvm_passes.native import plugin_source
from tvm_passes.operators import OPERATORS
from tvm_passes.precisions import PRECISIONS

MEASURING = ("layoutsel.building.measure:run_request",)
"""Function of measuring processes: code that all candidates share."""

TABLES = ("tvm_passes.layouts.", "tvm_passes.precisions.")
"""Prefixes of modules with entries that registries load by name; all candidates share them."""

_LEGALISATION = "tvm_passes.legalize"
"""Module that legalises our own operators."""

_LAYOUTSEL = Path(__file__).parents[1]
"""Folder of this package."""

ROOTS: Mapping[str, tuple[str, ...]] = {
    **{name: backend.code for name, backend in own_backends().items()},
    "cpu.convolution": (
        "tvm_passes.cpu.convolution_kernel:ConvolutionKernel",
        "tvm_passes.cpu.plan_series:plan_conv1d",
        "tvm_passes.cpu.plan_volumes:plan_conv3d",
    ),
    "cpu.generic": ("tvm_passes.cpu.fallback:legalise", f"{_LEGALISATION}:{ALL}"),
    "cpu.attention": ("tvm_passes.cpu.plan_attention:plan_attention",),
    "cpu.lrn": ("tvm_passes.cpu.lrn:plan_lrn",),
    "cpu.pointwise": (
        "tvm_passes.cpu.pointwise:plan_concat",
        "tvm_passes.cpu.pointwise:plan_elementwise",
    ),
    "cpu.products": (
        "tvm_passes.cpu.matvec:MatrixVector",
        "tvm_passes.cpu.batched:plan_batched",
    ),
    "cpu.reorder": ("tvm_passes.cpu.reorder:reorder",),
    "cpu.rows": ("tvm_passes.cpu.rows:plan_layer_norm", "tvm_passes.cpu.rows:plan_softmax"),
    "cpu.transposed": ("tvm_passes.cpu.plan_transposed:plan_transposed",),
    "cpu.window": (
        "tvm_passes.cpu.window_kernel:WindowKernel",
        "tvm_passes.cpu.depthwise:Depthwise",
    ),
}
"""First definitions of the code of units and of default algorithms' kernels, by scope."""

_GENERATED = ("cpu.generic", "cpu.tuned")
"""Scopes of the CPU's code that TVM generates from legalised operators."""

ELSEWHERE = (
    # These tables name every unit and algorithm; each has a scope of its own.
    "tvm_passes.algorithms:ALGORITHMS",
    "tvm_passes.backends:BACKENDS",
    # The structural hash of a sub-graph, part of every key, covers its partitioning.
    "tvm_passes.partition:PartitionSubgraphs",
)
"""Definitions at which the search for code stops, as they belong to no scope."""


def all_versions() -> dict[str, str]:
    """Collect all versions that determine the cost of candidates, and the release."""
    return {
        **versions(),
        **_libraries(),
        **code_versions(),
        **_foreign_versions(),
        **_foreign_algorithms(),
    }


def _libraries() -> dict[str, str]:
    """Versions of the libraries and native plugins of our units, and of the release."""
    own = own_backends().values()
    packages: dict[str, str] = {}
    for one in own:
        packages |= versions((one.package,), scope=one.name) if one.package else {}
    plugins = {
        f"{one.name}:plugin": plugin_source(one.plugin, one.name) for one in own if one.plugin
    }
    return {**packages, **versions(("layoutsel",), scope="release"), **plugins}


def roots() -> dict[str, tuple[str, ...]]:
    """Find the first definitions of the code of each built-in unit and family of kernels.

    The code of a unit ends at the first definitions of its families, such as ``cpu.winograd``.
    """
    found = dict(ROOTS)
    for algorithm in ALGORITHMS.values():
        if not _is_foreign(algorithm):
            for family in _families(algorithm):
                found[family] = (*found.get(family, ()), *algorithm.roots)
    return found


@cache
def code_versions() -> Mapping[str, str]:
    """Find the digests of the code that generates and measures kernels, by scope."""
    code = Code({"layoutsel": _LAYOUTSEL, "tvm_passes": Path(str(tvm_passes.__file__)).parent})
    return kept_digests(code_source(code), lambda: code_digests(code))


def code_source(code: Code) -> str:
    """Hash everything that the digests of the code depend on, without parsing it."""
    ends = {scope: (starts, stops_of(scope)) for scope, starts in all_roots(code).items()}
    return hashlib.sha256(f"{sys.version} {ends} {code.fingerprint()}".encode()).hexdigest()


def code_digests(code: Code) -> dict[str, str]:
    """Compute digests by the name of a version.

    ``code`` affects everything, ``cpu.winograd:code`` only one family.
    """
    return {
        f"{scope}:code" if scope else "code": code.digest(starts, stops_of(scope))
        for scope, starts in all_roots(code).items()
    }


def all_roots(code: Code) -> dict[str, tuple[str, ...]]:
    """Find the first definitions of each scope; the empty scope is that of all candidates."""
    entries = [f"{module}:{ALL}" for module in code.modules if module.startswith(TABLES)]
    return {"": (*MEASURING, *entries), **roots()}


def stops_of(scope: str) -> tuple[str, ...]:
    """List the definitions at which the code of a scope ends.

    The code of the empty scope, shared by all candidates, ends where any other scope starts.
    """
    prefix = f"{scope}." if scope else ""
    inner = [starts for one, starts in roots().items() if one.startswith(prefix)]
    return (*ELSEWHERE, *chain.from_iterable(inner))


def _foreign_versions() -> dict[str, str]:
    """Compute the digests of units, operators, layouts and precisions from other packages."""
    units = {
        f"{name}:code": _module_version(BACKENDS.origins.get(name) or _lowering_module(backend))
        for name, backend in BACKENDS.items()
        if name not in own_backends()
    }
    generated = (*_GENERATED, *(name for name, one in BACKENDS.items() if one.legalises))
    rules = {name: entry.legalize for name, entry in OPERATORS.items() if entry.legalize}
    modules = {name: defining_module(rule) for name, rule in rules.items()}
    operators = {
        f"{scope}:{name}": _module_version(module)
        for name, module in modules.items()
        if module != _LEGALISATION
        for scope in generated
    }
    forms = {
        f"{scopes.entry_scope(table.concept, name)}:code": _module_version(module)
        for table in (LAYOUTS, PRECISIONS)
        for name, module in table.origins.items()
    }
    return {**units, **operators, **forms}


def _lowering_module(backend: Backend) -> str:
    return defining_module(backend.lower or backend.planner or backend.supports)


def _foreign_algorithms() -> dict[str, str]:
    """Compute the digests of algorithms from other packages, including our code that they use."""
    return {
        f"{family}:{algorithm.name}": _foreign_algorithm(algorithm)
        for algorithm in ALGORITHMS.values()
        if _is_foreign(algorithm)
        for family in _families(algorithm)
    }


def _foreign_algorithm(algorithm: Algorithm) -> str:
    modules = [Definition.parse(root).module for root in algorithm.roots]
    packages = dict(map(_package_of, (*modules, "tvm_passes")))
    return Code(packages).digest([f"{module}:{ALL}" for module in modules], ELSEWHERE)


def _families(algorithm: Algorithm) -> list[str]:
    return list(chain.from_iterable(map(algorithm.families, algorithm.units)))


def _is_foreign(algorithm: Algorithm) -> bool:
    """True if the algorithm's code lies in another package."""
    return any(not root.startswith(_OURS) for root in algorithm.roots)


_OURS = ("tvm_passes.", "layoutsel.")


def _module_version(module: str) -> str:
    """Compute the digest of a module and the code that it reaches within its package."""
    return Code(dict([_package_of(module)])).digest((f"{module}:{ALL}",))


def _package_of(module: str) -> tuple[str, Path]:
    """Return name and folder of a module's package."""
    import_module(module)
    top = sys.modules[module.partition(".")[0]]
    if top.__file__ is None:  # a folder without __init__.py
        folder = Path(next(iter(top.__path__)))
    else:
        file = Path(top.__file__)
        folder = file.parent if file.name == "__init__.py" else file.with_suffix("")
    return top.__name__, folder
