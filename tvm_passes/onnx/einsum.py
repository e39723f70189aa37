"""Converter of Einsum to transposes, sums and batched matrix products, which have kernels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod
from typing import Any

from tvm import relax
from tvm.relax import Expr

from tvm_passes.errors import UnsupportedModel
from tvm_passes.onnx.padding import static_shape

_SPARE = "αβγδεζηθικλμ"
"""Letters of the dimensions of an ellipsis; equations contain Latin letters only."""


def convert(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    _state: Any,
    _opset: int,
) -> Expr:
    """Convert an Einsum: its operands are multiplied from left to right.

    Raises
    ------
    UnsupportedModel
        If an operand repeats a letter (a diagonal), or the equation does not fit the shapes.
    """
    terms, result = _parse(attributes["equation"].decode(), inputs)
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, inputs, strict=True):
        for letter, size in zip(term, static_shape(operand), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    left, value = terms[0], inputs[0]
    for index in range(1, len(terms)):
        later = {*result, *(letter for term in terms[index + 1 :] for letter in term)}
        left, value = _multiply(builder, (left, value), (terms[index], inputs[index]), later)
    summed, value = _keep(builder, left, value, result)
    value = _permute(builder, summed, value, [letter for letter in result if letter in summed])
    shape = [sizes[letter] for letter in result]
    return value if list(static_shape(value)) == shape else relax.op.broadcast_to(value, shape)


def _parse(equation: str, inputs: Sequence[Expr]) -> tuple[list[str], str]:
    """Letters of each operand and of the result, an ellipsis spelled out."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(inputs):
        raise UnsupportedModel(
            f"equation {equation!r} has {len(terms)} operands; got {len(inputs)}"
        )
    longest = 0
    for index, (term, operand) in enumerate(zip(terms, inputs, strict=True)):
        hidden = len(static_shape(operand)) - len(term.replace("...", ""))
        if hidden < 0 or (hidden and "..." not in term):
            raise UnsupportedModel(
                f"equation {equation!r} does not fit an operand of shape {static_shape(operand)}"
            )
        terms[index] = term.replace("...", _SPARE[len(_SPARE) - hidden :])
        longest = max(longest, hidden)
    ellipsis = _SPARE[len(_SPARE) - longest :]
    letters = sorted({letter for term in terms for letter in term} - set(ellipsis))
    once = [letter for letter in letters if sum(term.count(letter) for term in terms) == 1]
    result = right.replace("...", ellipsis) if arrow else ellipsis + "".join(once)
    for term in (*terms, result):
        if len(set(term)) != len(term):
            raise UnsupportedModel(f"equation {equation!r} repeats a letter; expected each once")
    if not set(result) <= {letter for term in terms for letter in term}:
        raise UnsupportedModel(f"equation {equation!r} has a result that no operand has")
    return terms, result


_Operand = tuple[str, Expr]
"""The letters of a tensor's dimensions and the tensor."""


def _keep(
    builder: relax.BlockBuilder, letters: str, value: Expr, wanted: Collection[str]
) -> _Operand:
    """Sum over the dimensions that are not wanted."""
    axes = [axis for axis, letter in enumerate(letters) if letter not in wanted]
    if not axes:
        return letters, value
    kept = "".join(letter for letter in letters if letter in wanted)
    return kept, builder.emit(relax.op.sum(value, axes))


def _permute(builder: relax.BlockBuilder, letters: str, value: Expr, order: Sequence[str]) -> Expr:
    axes = [letters.index(letter) for letter in order]
    if axes == sorted(axes):
        return value
    return builder.emit(relax.op.permute_dims(value, axes))


def _multiply(
    builder: relax.BlockBuilder, left: _Operand, right: _Operand, later: Collection[str]
) -> _Operand:
    """Multiply two operands by one batched matrix product.

    Common letters that are read later are its batch; the other common ones are summed over.
    """
    left = _keep(builder, *left, {*later, *right[0]})
    right = _keep(builder, *right, {*later, *left[0]})
    sizes = [
        dict(zip(letters, static_shape(value), strict=True)) for letters, value in (left, right)
    ]
    # Where one side broadcasts along a sum, each side can be summed by itself.
    apart = {
        letter
        for letter in {*left[0]} & {*right[0]} - {*later}
        if sizes[0][letter] != sizes[1][letter]
    }
    left = _keep(builder, *left, {*left[0]} - apart)
    right = _keep(builder, *right, {*right[0]} - apart)
    common = [letter for letter in left[0] if letter in right[0]]
    batch = [letter for letter in common if letter in later]
    summed = [letter for letter in common if letter not in later]
    rows = [letter for letter in left[0] if letter not in common]
    columns = [letter for letter in right[0] if letter not in common]
    a = _matrix(builder, left, sizes[0], (batch, rows, summed))
    b = _matrix(builder, right, sizes[1], (batch, summed, columns))
    product = builder.emit(relax.op.matmul(a, b))
    shape = [max(sizes[0][letter], sizes[1][letter]) for letter in batch]
    shape += [sizes[0][letter] for letter in rows] + [sizes[1][letter] for letter in columns]
    letters = "".join([*batch, *rows, *columns])
    return letters, _reshape(builder, product, shape)


def _matrix(
    builder: relax.BlockBuilder,
    operand: _Operand,
    sizes: dict[str, int],
    groups: tuple[list[str], list[str], list[str]],
) -> Expr:
    """`operand` as (batch…, product of the second group, product of the third)."""
    batch, second, third = groups
    value = _permute(builder, *operand, [*batch, *second, *third])
    shape = [sizes[letter] for letter in batch]
    shape += [prod(sizes[letter] for letter in group) for group in (second, third)]
    return _reshape(builder, value, shape)


def _reshape(builder: relax.BlockBuilder, value: Expr, shape: list[int]) -> Expr:
    if list(static_shape(value)) == shape:
        return value
    return builder.emit(relax.op.reshape(value, shape))
