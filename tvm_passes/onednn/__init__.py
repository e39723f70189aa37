"""oneDNN as a compute unit: legality, code generation and the native plugin that runs it.

Importing this package loads neither TVM nor the plugin; the functions below do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm_passes.onednn.plugin import available, load, set_num_threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tvm_passes.decision import Decision
    from tvm_passes.errors import Decline

__all__ = ["LowerOnednn", "available", "hints", "load", "set_num_threads", "supports"]


def supports(function: Any, decision: Decision) -> Decline | None:
    """Why `decision` is not possible for a stage-1 sub-graph function; None where it is."""
    from tvm_passes.onednn.legality import supports as check

    return check(function, decision)


def hints(function: Any, decision: Decision) -> Mapping[str, float]:
    """Which of oneDNN's implementations compute a stage-1 sub-graph function that is supported."""
    from tvm_passes.onednn.legality import hints as ask

    return ask(function, decision)


def LowerOnednn() -> Any:
    """The module pass of :mod:`tvm_passes.onednn.lower`."""
    from tvm_passes.onednn.lower import LowerOnednn as Pass

    return Pass()
