"""From any imported Relax module to the normalised form on which sub-graphs are formed."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import IRModule

from tvm_passes.limits import ConstantBudget
from tvm_passes.normalize.canonicalize_activations import CanonicalizeActivations
from tvm_passes.normalize.canonicalize_normalizations import CanonicalizeNormalizations
from tvm_passes.normalize.clip_windows import ClipWindows
from tvm_passes.normalize.decompose_batch_norm import DecomposeBatchNorm
from tvm_passes.normalize.fold_constants import FoldConstants
from tvm_passes.normalize.fold_padding import FoldPadding
from tvm_passes.normalize.fold_quantization import FoldQuantization
from tvm_passes.normalize.fold_scale_shift import FoldScaleShift
from tvm_passes.normalize.norms_to_rows import NormsToRows
from tvm_passes.normalize.remove_identities import RemoveIdentities
from tvm_passes.normalize.widen_floats import WidenFloats

__all__ = [
    "CanonicalizeActivations",
    "CanonicalizeNormalizations",
    "ClipWindows",
    "DecomposeBatchNorm",
    "FoldConstants",
    "FoldPadding",
    "FoldQuantization",
    "FoldScaleShift",
    "NormsToRows",
    "RemoveIdentities",
    "WidenFloats",
    "normalize",
]


def normalize(module: IRModule, budget: ConstantBudget | None = None) -> IRModule:
    """Bring an inference module into the form that partitioning expects.

    Ensures: arithmetic is in float32 where the model's is narrower, weights are constants, arithmetic of constants is
    folded, batch normalisation is part of the weights before it, decomposed activations are single operators, windows
    reach no further than the input needs, nothing in `main` is without effect. Operators that no pass knows stay as they
    are. Constants that are computed are charged to `budget`.
    """
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
        relax.transform.CanonicalizeBindings(),
        drop_unused,
    ]
    with tvm.transform.PassContext(opt_level=3):
        for rewrite in passes:
            module = rewrite(module)
    return module
