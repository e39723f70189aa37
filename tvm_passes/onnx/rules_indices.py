"""Rules for indices, axes and sizes; constant ones must lie inside the tensor."""

from __future__ import annotations

import numpy as np

from tvm_passes.onnx.facts import NodeFacts


def _outside(indices: np.ndarray, size: int) -> str | None:
    """Return a fault that names the first index outside of ``[-size, size)``, or None."""
    wrong = indices[(indices < -size) | (indices >= size)]
    if not wrong.size:
        return None
    return f"got index {int(wrong.flat[0])}; expected -{size} to {size - 1}"


def indices_of_axis(node: NodeFacts) -> str | None:
    """Check constant indices along one axis of the first input."""
    data, indices = node.shape(0), node.value(1)
    axis = node.attributes.get("axis", 0)
    if data == ():
        return "got a scalar to take elements of; expected an axis"
    if data is not None and not -len(data) <= axis < len(data):
        return f"got axis {axis}; expected -{len(data)} to {len(data) - 1}"
    if data is None or indices is None:
        return None
    return _outside(indices, data[axis])


def coordinates(node: NodeFacts) -> str | None:
    """Check constant coordinates into the axes of the first input after its batch axes."""
    data, indices = node.shape(0), node.value(1)
    batch = node.attributes.get("batch_dims", 0)
    if data is None or indices is None or indices.ndim == 0:
        return None
    sizes = data[batch : batch + indices.shape[-1]]
    found = (_outside(indices[..., axis], size) for axis, size in enumerate(sizes))
    return next(filter(None, found), None)


def elements_fit(node: NodeFacts) -> str | None:
    """Check the shape of indices that select single elements.

    It has the rank of the data, and is no larger along any axis except ``axis``.
    """
    data, indices = node.shape(0), node.shape(1)
    if data is None or indices is None:
        return None
    axis = node.attributes.get("axis", 0)
    if not -len(data) <= axis < len(data):
        return f"got axis {axis}; expected -{len(data)} to {len(data) - 1}"
    pairs = list(zip(indices, data, strict=False))
    fits = len(indices) == len(data) and all(
        index <= size for place, (index, size) in enumerate(pairs) if place != axis % len(data)
    )
    if fits:
        return None
    return (
        f"got indices of {list(indices)}; expected at most the data's {list(data)} outside axis "
        f"{axis}"
    )


def updates_like_indices(node: NodeFacts) -> str | None:
    """Check that the updates have the shape of the indices."""
    indices, updates = node.shape(1), node.shape(2)
    if indices is None or updates is None or indices == updates:
        return None
    return f"got updates of {list(updates)}; expected {list(indices)}, as of the indices"


def updates_of_slices(node: NodeFacts) -> str | None:
    """Check that the updates hold one slice of the data for each coordinate."""
    data, indices, updates = node.shape(0), node.shape(1), node.shape(2)
    if data is None or indices is None or updates is None or not indices:
        return None
    if not 1 <= indices[-1] <= len(data):
        return f"got coordinates of {indices[-1]} numbers; expected 1 to {len(data)}"
    wanted = (*indices[:-1], *data[indices[-1] :])
    return None if updates == wanted else f"got updates of {list(updates)}; expected {list(wanted)}"


def axis_value(node: NodeFacts) -> str | None:
    """Check that the second input, if constant, is one axis of the first input."""
    data, axis = node.shape(0), node.value(1)
    if data is None or axis is None:
        return None
    if axis.size != 1:
        return f"got {axis.size} axes; expected one"
    inside = -len(data) <= int(axis.item()) < len(data)
    return (
        None if inside else f"got axis {int(axis.item())}; expected -{len(data)} to {len(data) - 1}"
    )


def split(node: NodeFacts) -> str | None:
    """Check that the sizes of the parts add up to the extent of the axis."""
    data, axis, count = node.shape(0), node.attributes.get("axis", 0), len(node.outputs)
    stated = node.attributes.get("num_outputs")
    if stated is not None and stated != count:
        return f"got num_outputs {stated} and {count} outputs; expected the same"
    sizes = node.value(1) if node.version >= 13 else node.attributes.get("split")
    if sizes is None or data is None or not -len(data) <= axis < len(data):
        return None
    sizes = [int(size) for size in np.asarray(sizes).reshape(-1)]
    if len(sizes) == count and min(sizes, default=0) >= 0 and sum(sizes) == data[axis]:
        return None
    return f"got sizes {sizes} of {count} parts; expected {count} that add up to {data[axis]}"


def top_k(node: NodeFacts) -> str | None:
    """Check that k is at most the extent of the axis."""
    data, axis = node.shape(0), node.attributes.get("axis", -1)
    value = node.value(1) if node.version >= 10 else node.attributes.get("k")
    if value is None or data is None or not -len(data) <= axis < len(data):
        return None
    count = int(np.asarray(value).reshape(-1)[0])
    if 0 <= count <= data[axis]:
        return None
    return f"got k {count}; expected 0 to {data[axis]}"


def permutation(node: NodeFacts) -> str | None:
    """Check that a permutation names each axis once."""
    data, perm = node.shape(0), node.attributes.get("perm")
    if data is None or perm is None or sorted(perm) == list(range(len(data))):
        return None
    return f"got perm {list(perm)}; expected each of 0 to {len(data) - 1} once"


def step(node: NodeFacts) -> str | None:
    """Check that a constant step is not 0."""
    step = node.value(2)
    return "got delta 0; expected another step" if step is not None and not step.any() else None


def new_axis(node: NodeFacts) -> str | None:
    """Check that ``axis`` is an axis of the result, which has one more than the first input."""
    data, axis = node.shape(0), node.attributes.get("axis", -1)
    if data is None or -len(data) - 1 <= axis <= len(data):
        return None
    return f"got axis {axis}; expected -{len(data) + 1} to {len(data)}"


def elements(node: NodeFacts) -> str | None:
    """Check that a reshape keeps the number of elements."""
    data, result = node.shape(0), node.result()
    if data is None or result is None:
        return None
    if int(np.prod(data, dtype=object)) == int(np.prod(result, dtype=object)):
        return None
    return f"got {list(data)} as {list(result)}; expected the same number of elements"
