"""Normalisation of an imported Relax module before it is partitioned into sub-graphs."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import IRModule

from tvm_passes.limits import ImportBudget, ImportLimits
from tvm_passes.normalize.canonicalize_activations import CanonicalizeActivations
from tvm_passes.normalize.canonicalize_normalizations import CanonicalizeNormalizations
from tvm_passes.normalize.clip_windows import ClipWindows
from tvm_passes.normalize.decompose_batch_norm import DecomposeBatchNorm
from tvm_passes.normalize.fold_constants import FoldConstants
from tvm_passes.normalize.fold_padding import FoldPadding
from tvm_passes.normalize.fold_quantization import FoldQuantization
from tvm_passes.normalize.fold_reshapes import FoldReshapes
from tvm_passes.normalize.fold_scale_shift import FoldScaleShift
from tvm_passes.normalize.norms_to_rows import NormsToRows
from tvm_passes.normalize.remove_identities import RemoveIdentities
from tvm_passes.normalize.unbind_splits import UnbindSplits
from tvm_passes.normalize.widen_floats import WidenFloats

__all__ = [
    "CanonicalizeActivations",
    "CanonicalizeNormalizations",
    "ClipWindows",
    "DecomposeBatchNorm",
    "FoldConstants",
    "FoldPadding",
    "FoldQuantization",
    "FoldReshapes",
    "FoldScaleShift",
    "NormsToRows",
    "RemoveIdentities",
    "UnbindSplits",
    "WidenFloats",
    "normalize",
]


def normalize(module: IRModule, budget: ImportBudget | None = None) -> IRModule:
    """Normalise an inference module for partitioning.

    Time and computed constants are charged to `budget`. Unknown operators stay unchanged.

    *Ensures* float32 in place of narrower arithmetic, folded constants, constant weights, batch
    normalisation merged into the weights before it, single operators in place of decomposed
    activations, windows clipped to their input, masks added without reshapes, and
    no unused binding in `main`.
    """
    budget = budget or ImportBudget(ImportLimits())
    drop_unused = relax.transform.DeadCodeElimination()
    passes = [
        relax.transform.ConvertToDataflow(),
        WidenFloats(),
        drop_unused,
        RemoveIdentities(),
        FoldConstants(budget),
        CanonicalizeNormalizations(),
        NormsToRows(),
        CanonicalizeActivations(),
        DecomposeBatchNorm(),
        FoldPadding(),
        ClipWindows(),
        drop_unused,
        FoldScaleShift(),
        FoldQuantization(),
        RemoveIdentities(),
        FoldReshapes(),
        UnbindSplits(),
        relax.transform.CanonicalizeBindings(),
        drop_unused,
    ]
    with tvm.transform.PassContext(opt_level=3):
        for rewrite in passes:
            budget.check_time(f"pass {rewrite.info.name}")
            module = rewrite(module)
    return module
