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
    """Return the reason why `decision` is impossible for a stage-1 sub-graph function, or None."""
    from tvm_passes.onednn.legality import supports as check

    return check(function, decision)


def hints(function: Any, decision: Decision) -> Mapping[str, float]:
    """Count the oneDNN implementations that compute a supported stage-1 sub-graph function.

    See :func:`tvm_passes.onednn.legality.hints`.
    """
    from tvm_passes.onednn.legality import hints as ask

    return ask(function, decision)


def LowerOnednn() -> Any:
    """Create the module pass of :mod:`tvm_passes.onednn.lower`."""
    from tvm_passes.onednn.lower import LowerOnednn as Pass

    return Pass()
