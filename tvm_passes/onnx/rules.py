"""Rules for ONNX nodes that ONNX's own checks omit; models that break one are rejected.

Functions that take a node are rules themselves; the others make one.
"""

from __future__ import annotations

import numpy as np

from tvm_passes.onnx.facts import NodeFacts, Rule, broadcasts_to

_INTEGERS = frozenset({*range(2, 8), 12, 13})
"""Numbers of the integer types of 8 to 64 bits in ONNX."""


def one_of(attribute: str, *allowed: str) -> Rule:
    """Make the rule that an attribute has one of the `allowed` values, the first by default."""

    def check(node: NodeFacts) -> str | None:
        value = node.attributes.get(attribute, allowed[0])
        if value in allowed:
            return None
        return f"got {attribute} {value!r}; expected one of {', '.join(allowed)}"

    return check


def positive(attribute: str) -> Rule:
    """Make the rule that an attribute, if given, is positive."""

    def check(node: NodeFacts) -> str | None:
        value = node.attributes.get(attribute, 1)
        return None if value > 0 else f"got {attribute} {value}; expected a positive number"

    return check


def divisor(node: NodeFacts) -> str | None:
    """Check that no integer is divided by a constant 0; a float would yield an infinity."""
    divisor = node.value(1)
    if divisor is None or node.dtype(1) not in _INTEGERS or divisor.all():
        return None
    return "got a division of integers by a constant 0; expected no zero among the divisors"


def float_remainder(node: NodeFacts) -> str | None:
    """Check that ``fmod`` is 1 for floats: their remainder has the sign of the dividend."""
    if node.dtype(0) in (0, *_INTEGERS) or node.attributes.get("fmod", 0) == 1:
        return None
    return "got fmod 0 for floating-point numbers; expected 1"


def vector(*indices: int) -> Rule:
    """Make the rule that the inputs `indices` have one dimension."""

    def check(node: NodeFacts) -> str | None:
        for index in indices:
            shape = node.shape(index)
            if shape is not None and len(shape) != 1:
                return f"input {index}: got {list(shape)}; expected one dimension"
        return None

    return check


def scalar(*indices: int) -> Rule:
    """Make the rule that the inputs `indices` hold one number each."""

    def check(node: NodeFacts) -> str | None:
        for index in indices:
            shape = node.shape(index)
            if shape not in (None, (), (1,)):
                return f"input {index}: got {list(shape or ())}; expected a scalar"
        return None

    return check


def broadcast(index: int, target: int | None = None) -> Rule:
    """Make the rule that input `index` broadcasts to input `target`, or to the result if None."""

    def check(node: NodeFacts) -> str | None:
        shape = node.shape(index)
        wanted = node.result() if target is None else node.shape(target)
        if shape is None or wanted is None or broadcasts_to(shape, wanted):
            return None
        return f"input {index}: got {list(shape)}; expected one that broadcasts to {list(wanted)}"

    return check


def per_channel(*indices: int) -> Rule:
    """Make the rule that the inputs `indices` have one number per channel of the first input."""

    def check(node: NodeFacts) -> str | None:
        data = node.shape(0)
        if data is None or len(data) < 2:
            return None if data is None else f"got data of {list(data)}; expected channels"
        for index in indices:
            shape = node.shape(index)
            if shape is not None and shape != (data[1],):
                return f"input {index}: got {list(shape)}; expected [{data[1]}], one per channel"
        return None

    return check


def groups_of_channels(node: NodeFacts) -> str | None:
    """Check that the channels can be divided into the stated number of groups."""
    data, groups = node.shape(0), node.attributes.get("num_groups", 1)
    if groups < 1:
        return f"got num_groups {groups}; expected at least 1"
    if data is None or len(data) < 2 or data[1] % groups == 0:
        return None
    return f"got {data[1]} channels in {groups} groups; expected a multiple of {groups}"


def blocks(node: NodeFacts) -> str | None:
    """Check that blocks divide the image (SpaceToDepth) or the channels (DepthToSpace) evenly."""
    data, size = node.shape(0), node.attributes.get("blocksize", 1)
    if size < 1:
        return f"got blocksize {size}; expected a positive number"
    if data is None or len(data) != 4:
        return None if data is None else f"got data of {list(data)}; expected four dimensions"
    divided, by = (data[2:], size) if node.op == "SpaceToDepth" else (data[1:2], size * size)
    if all(extent % by == 0 for extent in divided):
        return None
    return f"got sizes {list(divided)} in blocks of {by}; expected multiples"


def scaling(node: NodeFacts) -> str | None:
    """Check that Resize or Upsample states positive scales or positive sizes, but not both."""
    first = {"Upsample": 1, "Resize": 2 if node.version >= 11 else 1}[node.op]
    stated = node.attributes.get("scales") if node.op == "Upsample" else None
    scales = node.value(first) if stated is None else np.asarray(stated)
    sizes = node.value(3)
    for name, value in (("scales", scales), ("sizes", sizes)):
        if value is not None and value.size and not (value > 0).all():
            return f"got {name} {value.tolist()}; expected positive numbers"
    if scales is not None and scales.size and sizes is not None and sizes.size:
        return "got both scales and sizes; expected one of them"
    return None


def reflection(node: NodeFacts) -> str | None:
    """Check that padding by reflection is smaller than the data along each axis."""
    mode = node.attributes.get("mode", "constant")
    data = node.shape(0)
    pads = node.value(1) if node.version >= 11 else node.attributes.get("pads")
    if mode != "reflect" or data is None or pads is None or node.value(3) is not None:
        return None
    pads = [int(pad) for pad in np.asarray(pads).reshape(-1)]
    if all(pad < size for pad, size in zip(pads, data + data, strict=True)):
        return None
    return f"got pads {pads} by reflection of {list(data)}; expected less than each size"


def quantization(node: NodeFacts) -> str | None:
    """Check that there is one scale, or one for each index along ``axis``."""
    data, scale = node.shape(0), node.shape(1)
    axis = node.attributes.get("axis", 1)
    if data is None or scale is None or len(scale) != 1 or scale == (1,):
        return None
    if not -len(data) <= axis < len(data):
        return f"got axis {axis}; expected -{len(data)} to {len(data) - 1}"
    if scale[0] == data[axis]:
        return None
    return f"got {scale[0]} scales for axis {axis} of {list(data)}; expected {data[axis]}"


def zero_point(node: NodeFacts) -> str | None:
    """Check that the zero point has the shape of the scale."""
    scale, zero = node.shape(1), node.shape(2)
    same = scale is None or zero is None or scale == zero or {scale, zero} == {(), (1,)}
    return None if same else f"got a zero point of {list(zero or ())}; expected {list(scale or ())}"


def equation(node: NodeFacts) -> str | None:
    """Check that each letter of an Einsum has one extent, apart from 1, which broadcasts."""
    left = node.attributes.get("equation", "").replace(" ", "").split("->")[0]
    sizes: dict[str, int] = {}
    if "." in left:
        return None
    for index, letters in enumerate(left.split(",")):
        for letter, size in zip(letters, node.shape(index) or (), strict=False):
            if 1 not in (size, known := sizes.setdefault(letter, size)) and size != known:
                return f"got sizes {known} and {size} for {letter!r}; expected one"
    return None


def axis(node: NodeFacts) -> str | None:
    """Check that the attribute ``axis`` names an axis of the first input."""
    data, axis = node.shape(0), node.attributes.get("axis", -1)
    if data is None or -len(data) <= axis < len(data):
        return None
    return f"got axis {axis}; expected -{len(data)} to {len(data) - 1}"


NORMALIZED: tuple[Rule, ...] = (axis, broadcast(1, 0), broadcast(2, 0))
"""Rules of a normalisation along ``axis`` with a scale and a shift."""

QUANTIZED: tuple[Rule, ...] = (quantization, zero_point)
"""Rules of QuantizeLinear and DequantizeLinear."""

_RESIZE_MODES = one_of("mode", "nearest", "linear", "cubic", "bilinear")

UPSAMPLE: tuple[Rule, ...] = (_RESIZE_MODES, scaling)
"""Rules of Upsample."""

RESIZE: tuple[Rule, ...] = (
    _RESIZE_MODES,
    one_of(
        "coordinate_transformation_mode",
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    ),
    one_of("nearest_mode", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    one_of("keep_aspect_ratio_policy", "stretch", "not_larger", "not_smaller"),
    vector(1, 2, 3),
    scaling,
)
"""Rules of Resize."""
