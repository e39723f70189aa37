"""The table of operators: one entry each, with all that the compiler knows except kernels.

Each module of this package holds a family. A package from outside adds an :class:`Operator` through
the entry-point group ``layoutsel.operators``. Importing this does not import TVM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import cast

from tvm_passes.errors import LayoutselError
from tvm_passes.operators.entry import (
    CountedAs,
    Encoding,
    Operator,
    Role,
    Trait,
)
from tvm_passes.operators.flops import SizedCall, SizedTensor
from tvm_passes.operators.onnx_operator import OnnxOperator
from tvm_passes.registry import Registry, entries_in

__all__ = [
    "NARROW_FLOATS",
    "OPERATORS",
    "CountedAs",
    "Encoding",
    "OnnxOperator",
    "Operator",
    "Role",
    "SizedCall",
    "SizedTensor",
    "Trait",
    "find_onnx",
    "find_operator",
    "has_trait",
    "role",
]

NARROW_FLOATS = frozenset(["float16", "bfloat16"])
"""Element types for storage only: no sum may be computed in them."""


def _own() -> Iterator[Operator]:
    families = cast("list[tuple[Operator, ...]]", entries_in(__name__, "ENTRIES"))
    return chain.from_iterable(families)


OPERATORS: Registry[Operator] = Registry("operator", _own, Operator)
"""Operators by name; one that is not in the table is an anchor (see :func:`find_operator`)."""


def find_operator(name: str) -> Operator:
    """Find the entry of an operator, named without ``relax.``; a default entry if there is none."""
    return OPERATORS.get(name) or Operator(name=name, documentation="No entry.")


def role(name: str) -> Role:
    """Return the role of an operator, named without ``relax.``."""
    return find_operator(name).role


def find_onnx(name: str, domain: str = "") -> OnnxOperator | None:
    """Find an ONNX operator by name and domain; None if no entry has it.

    Raises
    ------
    LayoutselError
        If two entries have it.
    """
    return _onnx_operators(tuple(OPERATORS)).get(("" if domain == "ai.onnx" else domain, name))


@lru_cache(maxsize=1)
def _onnx_operators(entries: tuple[str, ...]) -> Mapping[tuple[str, str], OnnxOperator]:
    """Return the ONNX operators of the named entries, by domain and name."""
    found: dict[tuple[str, str], OnnxOperator] = {}
    for entry in entries:
        for one in OPERATORS[entry].onnx:
            if found.setdefault((one.domain, one.name), one) is not one:
                raise LayoutselError(
                    f"two entries have the operator {one.name} of domain "
                    f"{one.domain or 'ai.onnx'!r} of ONNX, one of them {entry!r}; expected one: "
                    f"uninstall one of them"
                )
    return found


def has_trait(name: str, trait: Trait) -> bool:
    """True if the operator of this name has a trait."""
    return trait in find_operator(name).traits
