"""Relax passes that place sub-graphs on compute units and choose their layouts.

They are usable without layoutsel: partition a module, write decisions by hand, build. Nothing here
imports layoutsel, and importing this package alone does not import TVM.
"""

from __future__ import annotations

from typing import Any


def register() -> None:
    """Register the passes with TVM: entry point of ``tvm.backends``, called at ``import tvm``.

    It makes ``tvm.compile(mod, target, relax_pipeline="layoutsel")`` available, and
    ``tvm.opencl()`` if there is a driver.
    """
    import tvm

    from tvm_passes.opencl import plugin

    plugin.available()
    if tvm._RUNTIME_ONLY:  # Without the compiler there are no pipelines.
        return

    from tvm.relax.pipeline import PIPELINE_MAP

    def layoutsel_pipeline(**options: Any) -> Any:
        from tvm_passes import pipeline

        return pipeline.layoutsel_pipeline(**options)

    PIPELINE_MAP.setdefault("layoutsel", layoutsel_pipeline)
