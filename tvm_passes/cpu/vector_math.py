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
_ERF = (
    1.8448157934e-3,
    -4.4558513910e-3,
    2.7657409664e-3,
    -3.2307596412e-3,
    1.3108210638e-2,
    -2.3248469457e-2,
    3.0405167490e-2,
    -4.2162351310e-2,
    5.8164406568e-2,
    -7.4274875224e-2,
    9.0632729232e-2,
    -1.0915684700e-1,
    1.3408251107e-1,
    -1.8010918796e-1,
    3.6073681712e-1,
)
"""erf(x) = x p(2 x² / e² - 1) on |x| ≤ e.

The largest error of p over √erf is the smallest of any polynomial with a result of 1 at the end e.
"""
_ERF_END = 3.92
"""The end e: beyond it, erf differs from 1 by less than the rounding error."""


_ESTIMATED = 16
"""Lanes for which instructions estimate 1 / x and 1 / √x (AVX-512)."""
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
    return reciprocal(exp(splat(0.0, lanes) - x, lanes) + splat(1.0, lanes), lanes)


def tanh(x: TirExpr, lanes: int) -> TirExpr:
    """Compute the hyperbolic tangent."""
    x = bind(x)
    one, two = splat(1.0, lanes), splat(2.0, lanes)
    far = bind(one - two * reciprocal(exp(x * two, lanes) + one, lanes))
    square = bind(x * x)
    near = _polynomial(square, _TANH, lanes) * square * x + x
    return tirx.Select(T.abs(x) < splat(0.625, lanes), near, far)


def erf(x: TirExpr, lanes: int) -> TirExpr:
    """Compute the error function: the absolute error is below 3e-7, the relative one below 1e-6."""
    x = bind(clamp(x, -_ERF_END, _ERF_END, lanes))
    place = bind(x * x * splat(2.0 / _ERF_END**2, lanes) - splat(1.0, lanes))
    return clamp(x * _polynomial(place, _ERF, lanes), -1.0, 1.0, lanes)


def gelu(x: TirExpr, lanes: int) -> TirExpr:
    """Compute x Φ(x), where Φ is the normal distribution."""
    x = bind(x)
    half = bind(x * splat(0.5, lanes))
    return half * erf(x * splat(math.sqrt(0.5), lanes), lanes) + half


def gelu_tanh(x: TirExpr, lanes: int) -> TirExpr:
    """Compute the approximation of :func:`gelu` by tanh."""
    x = bind(x)
    inner = (x + x * x * x * splat(0.044715, lanes)) * splat(math.sqrt(2 / math.pi), lanes)
    return x * splat(0.5, lanes) * (tanh(inner, lanes) + splat(1.0, lanes))


def reciprocal(x: TirExpr, lanes: int) -> TirExpr:
    """Compute 1 / x of a positive, normal number; 0 for infinity, NaN for NaN.

    With AVX-512, it is an estimate of 14 bits, refined by one step of Newton's method.
    """
    if lanes != _ESTIMATED:
        return splat(1.0, lanes) / x
    x, two = bind(x), splat(2.0, lanes)
    estimate = bind(_estimate("rcp14", x, lanes))
    # The product of infinity and 0 is NaN, for which the minimum is its second operand.
    return estimate * (two - T.min(x * estimate, two))


def _estimate(name: str, x: TirExpr, lanes: int) -> TirExpr:
    """Call an AVX-512 instruction that estimates a function of every lane."""
    everywhere = tirx.const(-1, "int16")
    intrinsic = f"llvm.x86.avx512.{name}.ps.512"
    return T.call_llvm_pure_intrin(f"float32x{lanes}", intrinsic, x, splat(0.0, lanes), everywhere)


def rsqrt(x: TirExpr, lanes: int) -> TirExpr:
    """Compute 1 / √x of a positive number.

    With AVX-512, it is an estimate of 14 bits, refined by one step of Newton's method.
    """
    if lanes != _ESTIMATED:
        return splat(1.0, lanes) / T.sqrt(x)
    x = bind(x)
    estimate = bind(_estimate("rsqrt14", x, lanes))
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
