"""Rules for convolutions and poolings that ONNX's own shape inference does not check."""

from __future__ import annotations

from tvm_passes.onnx.facts import NodeFacts, Rule

_AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def _auto_pad(node: NodeFacts) -> str | None:
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode in _AUTO_PADS:
        return None
    return f"got auto_pad {mode!r}; expected one of {', '.join(_AUTO_PADS)}"


def _room(node: NodeFacts) -> str | None:
    result, data = node.result(), node.shape(0)
    if result is None or all(size > 0 for size in result):
        return None
    window = node.attributes.get("kernel_shape") or (node.shape(1) or ())[2:]
    used = {
        name: list(node.attributes[name])
        for name in ("dilations", "pads", "strides")
        if name in node.attributes
    }
    how = "".join(f", {name} {value}" for name, value in used.items())
    return (
        f"got a window of {list(window)}{how} on data of {list((data or ())[2:])}, which leaves a "
        f"result of {list(result)}; expected room for at least one window"
    )


def _kernel_shape(weight: int) -> Rule:
    def check(node: NodeFacts) -> str | None:
        stated, shape = node.attributes.get("kernel_shape"), node.shape(weight)
        if stated is None or shape is None or tuple(stated) == shape[2:]:
            return None
        return f"got kernel_shape {list(stated)}; expected {list(shape[2:])}, as of its weights"

    return check


def _groups(weight: int) -> Rule:
    """Make the rule that channels fit weights [out, in / group, ...]."""

    def check(node: NodeFacts) -> str | None:
        group, data, weights = node.attributes.get("group", 1), node.shape(0), node.shape(weight)
        if group < 1:
            return f"got group {group}; expected at least 1"
        if data is None or weights is None:
            return None
        if data[1] != weights[1] * group:
            return (
                f"got {data[1]} input channels in {group} groups with weights for {weights[1]} "
                f"each; expected {weights[1] * group} input channels"
            )
        if weights[0] % group:
            return (
                f"got {weights[0]} output channels in {group} groups; expected a multiple of "
                f"{group}"
            )
        return None

    return check


def _transposed_groups(node: NodeFacts) -> str | None:
    """Check that channels fit weights [in, out / group, ...]."""
    group, data, weights = node.attributes.get("group", 1), node.shape(0), node.shape(1)
    if group < 1:
        return f"got group {group}; expected at least 1"
    if data is None or weights is None:
        return None
    if data[1] != weights[0]:
        return f"got {data[1]} input channels; expected {weights[0]}, as of its weights"
    return f"got {data[1]} input channels in {group} groups" if data[1] % group else None


def _bias(index: int, channels: int, *, grouped: bool = False) -> Rule:
    """Make the rule that the bias has one number per output channel."""

    def check(node: NodeFacts) -> str | None:
        bias, weights = node.shape(index), node.shape(channels)
        if bias is None or weights is None:
            return None
        wanted = weights[1] * node.attributes.get("group", 1) if grouped else weights[0]
        return None if bias == (wanted,) else f"got a bias of {list(bias)}; expected [{wanted}]"

    return check


def _transposed_room(node: NodeFacts) -> str | None:
    """Check ``output_padding`` and ``output_shape``."""
    extra = node.attributes.get("output_padding", ())
    rank = len(extra)
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=False)):
        return (
            f"got output_padding {list(extra)}; expected less than the strides {list(strides)} or "
            f"dilations {list(dilations)}"
        )
    data, wanted = node.shape(0), node.attributes.get("output_shape")
    if wanted is None or data is None:
        return None
    if len(wanted) not in (len(data) - 2, len(data)) or any(size < 1 for size in wanted):
        return f"got output_shape {list(wanted)}; expected {len(data) - 2} positive sizes"
    return None


def _spatial(node: NodeFacts) -> str | None:
    data = node.shape(0)
    if data is None or len(data) >= 3:
        return None
    return f"got data of {list(data)}; expected batch, channels and at least one more dimension"


def _pool_pads(node: NodeFacts) -> str | None:
    """Check that no window lies in the padding alone, where there is nothing to pool."""
    pads, window = node.attributes.get("pads"), node.attributes.get("kernel_shape")
    if not pads or not window or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    dilations = node.attributes.get("dilations", [1] * len(window))
    reach = [(size - 1) * step + 1 for size, step in zip(window, dilations, strict=True)]
    if all(pad < size for pad, size in zip(pads, reach + reach, strict=True)):
        return None
    return f"got pads {list(pads)} for windows of {list(window)}; expected less than the window"


POOLING: tuple[Rule, ...] = (_auto_pad, _pool_pads, _room)
"""Rules of poolings."""

CONVOLUTION: tuple[Rule, ...] = (_auto_pad, _kernel_shape(1), _groups(1), _bias(2, 1), _room)
"""Rules of convolutions."""

INTEGER_CONVOLUTION: tuple[Rule, ...] = (_auto_pad, _kernel_shape(1), _groups(1), _room)
"""Rules of convolutions of integers."""

QUANTIZED_CONVOLUTION: tuple[Rule, ...] = (
    _auto_pad,
    _kernel_shape(3),
    _groups(3),
    _bias(8, 3),
    _room,
)
"""Rules of convolutions of quantised tensors."""

TRANSPOSED_CONVOLUTION: tuple[Rule, ...] = (
    _auto_pad,
    _kernel_shape(1),
    _transposed_groups,
    _bias(2, 1, grouped=True),
    _transposed_room,
    _room,
)
"""Rules of transposed convolutions."""

SPATIAL: tuple[Rule, ...] = (_spatial,)
"""Rules of global poolings, whose window is all spatial axes."""
