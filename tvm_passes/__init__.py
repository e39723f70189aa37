"""Relax passes that place sub-graphs on compute units and choose their layouts.

Usable without layoutsel: partition a module, write decisions by hand, build. Nothing here imports layoutsel, and
importing this package alone does not import TVM.
"""


def register() -> None:
    """Entry point of group ``tvm.backends``: TVM calls it at ``import tvm``.

    Makes ``tvm.compile(mod, target, relax_pipeline="layoutsel")`` available.
    """
    from tvm_passes.pipeline import register_pipeline

    register_pipeline()
