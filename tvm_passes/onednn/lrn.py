"""Parameters of a local response normalisation that the importer has spelled out."""

from __future__ import annotations

from tvm_passes.ir import Expr, op_name
from tvm_passes.onednn.contractions import ints
from tvm_passes.onednn.scope import Scope, scalar


def lrn_attributes(scope: Scope) -> tuple[Expr, dict[str, float | int]]:
    """Return the operand and oneDNN's attributes of a spelled-out normalisation.

    The normalisation is ``x / (bias + alpha * mean(x², over channels))^beta``.
    """
    calls = {}
    for binding in scope.bindings:
        operator = op_name(binding.value)
        if operator == "multiply" and operator not in calls and "square" not in calls:
            calls["square"] = binding.value
        else:
            calls[operator] = binding.value
    try:
        pool = calls["nn.avg_pool3d"]
        numbers = [scalar(calls[operator].args[1]) for operator in ("multiply", "add", "power")]
        operand = calls["divide"].args[0]
    except KeyError as missing:
        raise scope.fail(f"a body without {missing}", "the importer's form of LRN") from None
    size, *others = ints(pool.attrs.pool_size)
    before, after = int(pool.attrs.padding[0]), int(pool.attrs.padding[3])
    centred = before == after == (size - 1) // 2 and others == [1, 1]
    if not centred or not pool.attrs.count_include_pad or None in numbers:
        raise scope.fail(
            f"a window of {size} channels, padded {before} and {after}", "an odd window"
        )
    alpha, bias, beta = (float(number) for number in numbers if number is not None)
    return operand, {"size": size, "alpha": alpha, "beta": beta, "bias": bias}
