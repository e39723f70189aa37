"""Elementary functions on vectors of float32, as polynomials: LLVM would call libm for each lane.

Errors are within a few units in the last place where float32 can represent the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu.emit import TirExpr, bind, splat

_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
"""Logarithm of two as a sum of two numbers; products of the first with small integers are exact."""
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
"""Cephes ``expf``: exp(r) = 1 + r + r² p(r) on |r| ≤ ln 2 / 2."""
_TANH = (
    -5.70498872745e-3,
    2.06390887954e-2,
    -5.37397155531e-2,
    1.33314422036e-1,
    -3.33332819422e-1,
)
"""Cephes ``tanhf``: tanh(x) = x + x³ p(x²) on |x| < 0.625."""
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
"""Abramowitz and Stegun 7.1.26: erf(x) = 1 - t p(t) exp(-x²), t = 1 / (1 + 0.3275911 x)."""


_ESTIMATED = 16
"""Lanes for which an instruction estimates 1 / √x (AVX-512)."""
_LARGE = 1e38
"""Number above which the power of -3/4 is returned as zero."""


def _polynomial(x: TirExpr, coefficients: Sequence[float], lanes: int) -> TirExpr:
    """Evaluate a polynomial, highest coefficient first, by Horner's rule."""
    result = splat(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        result = result * x + splat(coefficient, lanes)
    return result


def _vector(dtype: str, lanes: int) -> str:
    """Return TVM's name of a vector type."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def at_least(x: TirExpr, least: float, lanes: int) -> TirExpr:
    """Return the larger of `x` and a number; NaN if `x` is NaN.

    The order of the operands matters: if one is NaN, x86 returns the second one, as TVM's ``max``
    does.
    """
    return T.max(splat(least, lanes), x)


def at_most(x: TirExpr, most: float, lanes: int) -> TirExpr:
    """Return the smaller of `x` and a number; NaN if `x` is NaN."""
    return T.min(splat(most, lanes), x)


def clamp(x: TirExpr, least: float, most: float, lanes: int) -> TirExpr:
    """Limit `x` to the interval between two numbers; NaN if `x` is NaN."""
    return at_most(at_least(x, least, lanes), most, lanes)


def exp(x: TirExpr, lanes: int) -> TirExpr:
    """Compute e to the power of `x`; NaN if `x` is NaN.

    The result is 0 or infinity beyond the ends of float32's range.
    """
    x = bind(clamp(x, -87.33, 89.0, lanes))
    n = bind(T.floor(x * splat(math.log2(math.e), lanes) + splat(0.5, lanes)))
    r = bind(x - n * splat(_LN2_HIGH, lanes) - n * splat(_LN2_LOW, lanes))
    mantissa = _polynomial(r, _EXP, lanes) * r * r + r + splat(1.0, lanes)
    # Half the power of two: the whole one is not representable for the largest results. It is 0 for
    # the smallest.
    bias = splat(tirx.const(126, "int32"), lanes)
    exponent = (tirx.Cast(_vector("int32", lanes), n) + bias) << splat(
        tirx.const(23, "int32"), lanes
    )
    half = tirx.reinterpret(_vector("float32", lanes), exponent)
    return mantissa * half * splat(2.0, lanes)


def sigmoid(x: TirExpr, lanes: int) -> TirExpr:
    """Compute the logistic function."""
    one = splat(1.0, lanes)
    return one / (one + exp(splat(0.0, lanes) - x, lanes))


def tanh(x: TirExpr, lanes: int) -> TirExpr:
    """Compute the hyperbolic tangent."""
    x = bind(x)
    one, two = splat(1.0, lanes), splat(2.0, lanes)
    far = bind(one - two / (exp(x * two, lanes) + one))
    square = bind(x * x)
    near = _polynomial(square, _TANH, lanes) * square * x + x
    return tirx.Select(T.abs(x) < splat(0.625, lanes), near, far)


def erf(x: TirExpr, lanes: int) -> TirExpr:
    """Compute the error function; the absolute error is below 2e-7."""
    x = bind(x)
    one = splat(1.0, lanes)
    magnitude = bind(T.abs(x))
    t = bind(one / (magnitude * splat(0.3275911, lanes) + one))
    tail = _polynomial(t, _ERF, lanes) * t * exp(splat(0.0, lanes) - x * x, lanes)
    positive = bind(one - tail)
    return tirx.Select(x < splat(0.0, lanes), splat(0.0, lanes) - positive, positive)


def gelu(x: TirExpr, lanes: int) -> TirExpr:
    """Compute x Φ(x), where Φ is the normal distribution."""
    x = bind(x)
    half = splat(0.5, lanes)
    return x * half * (erf(x * splat(math.sqrt(0.5), lanes), lanes) + splat(1.0, lanes))


def gelu_tanh(x: TirExpr, lanes: int) -> TirExpr:
    """Compute the approximation of :func:`gelu` by tanh."""
    x = bind(x)
    inner = (x + x * x * x * splat(0.044715, lanes)) * splat(math.sqrt(2 / math.pi), lanes)
    return x * splat(0.5, lanes) * (tanh(inner, lanes) + splat(1.0, lanes))


def rsqrt(x: TirExpr, lanes: int) -> TirExpr:
    """Compute 1 / √x of a positive number.

    With AVX-512, it is an estimate of 14 bits, refined by one step of Newton's method.
    """
    if lanes != _ESTIMATED:
        return splat(1.0, lanes) / T.sqrt(x)
    x = bind(x)
    everywhere = tirx.const(-1, "int16")
    estimate = bind(
        T.call_llvm_pure_intrin(
            f"float32x{lanes}", "llvm.x86.avx512.rsqrt14.ps.512", x, splat(0.0, lanes), everywhere
        )
    )
    half = splat(0.5, lanes) * x * estimate
    return estimate * (splat(1.5, lanes) - half * estimate)


def inverse_three_quarters(x: TirExpr, lanes: int) -> TirExpr:
    """Compute x to the power of -3/4 for a positive, normal number."""
    x = bind(x)
    root = bind(rsqrt(x, lanes))
    result = root * root * rsqrt(root, lanes)
    # Newton's step is undefined at infinity.
    return tirx.Select(x > splat(_LARGE, lanes), splat(0.0, lanes), result)


def power(x: TirExpr, exponent: float, lanes: int) -> TirExpr | None:
    """Compute `x` to a constant exponent: a multiple of 1/4, at most 8 in magnitude; else None."""
    quarters = exponent * 4
    if quarters != int(quarters) or abs(exponent) > 8:
        return None
    whole, rest = divmod(int(abs(quarters)), 4)
    factors = []
    x = bind(x)
    if whole:
        factors += [x] * whole
    if rest:
        root = bind(T.sqrt(x))
        factors += {1: [T.sqrt(root)], 2: [root], 3: [root, T.sqrt(root)]}[rest]
    result = splat(1.0, lanes)
    for factor in factors:
        result = result * factor
    return splat(1.0, lanes) / result if exponent < 0 else result
