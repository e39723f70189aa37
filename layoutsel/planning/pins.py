"""Pins: decisions that the user prescribes, such as ``conv_.*=onednn:NCHW16c``."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from layoutsel.core.precision import PrecisionMode, all_modes
from layoutsel.planning.problem import PlanningProblem, PricedSubgraph
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.errors import Decline, IllegalDecision, LayoutselError

ANY = "*"
"""Placeholder that leaves a field of a pinned decision open: ``*:NHWC`` is any unit in NHWC."""

_FIELDS = ("unit", "layout", "precision", "algorithm")


class UnsatisfiedPin(LayoutselError):
    """A pin that cannot be parsed, matches nothing, or is not possible."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A pattern for sub-graphs, and the part of the decision that it prescribes."""

    text: str
    """Text as written by the user."""
    pattern: re.Pattern[str]
    """Pattern that fully matches the sub-graph's id, a name of its operators, or an operator."""
    fields: tuple[str, ...]
    """Leading fields of a decision; :data:`ANY` leaves one open."""
    device: tuple[str, int] | None = None
    """Node and index of the unit's device; None leaves it open."""

    @classmethod
    def parse(cls, text: str) -> Pin:
        """Parse ``pattern=unit[@[node/]index][:layout[:precision[:algorithm]]]``.

        The last ``=`` separates pattern and decision.

        A unit without ``@`` may be on any of its devices.

        Raises
        ------
        UnsatisfiedPin
            If `text` cannot be parsed.
        """
        pattern, separator, decision = text.rpartition("=")
        fields = tuple(decision.split(":"))
        if not separator or not pattern or not all(fields) or len(fields) > len(_FIELDS):
            raise UnsatisfiedPin(
                f"cannot read pin {text!r}: expected "
                f"pattern=unit[:layout[:precision[:algorithm]]], such as 'conv_.*=onednn:NHWC', "
                f"'conv2d_3f2a9c=cpu', 'nn.softmax=cuda@1' or 'head_.*=*:NHWC'"
            )
        unit, device = _placed(text, fields[0])
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise UnsatisfiedPin(
                f"cannot read pin {text!r}: {pattern!r} is no regular expression: {error}"
            ) from error
        return cls(text=text, pattern=compiled, fields=(unit, *fields[1:]), device=device)

    def matches(self, node: PricedSubgraph) -> bool:
        """True if the pattern matches `node`."""
        return any(self.pattern.fullmatch(s) for s in (node.id, *node.names, *node.operators))

    def allows(self, decision: Decision) -> bool:
        """True if `decision` satisfies the pin."""
        if self.device not in (None, (decision.node, decision.index)):
            return False
        wanted = zip(_FIELDS, self.fields, strict=False)
        return all(value in (ANY, getattr(decision, name)) for name, value in wanted)


def _placed(text: str, field: str) -> tuple[str, tuple[str, int] | None]:
    """Parse the unit of a pin, with node and index if the pin names a device."""
    try:
        unit, device = parse_placed_unit(field)
    except IllegalDecision as error:
        raise UnsatisfiedPin(f"cannot read pin {text!r}: {error}") from error
    return unit, (device.node, device.index) if "@" in field else None


def without_units(pins: Iterable[str], units: Container[str]) -> list[str]:
    """Select the pins that name none of `units`."""
    return [pin for pin in pins if Pin.parse(pin).fields[0] not in units]


def check_offered(pins: Iterable[str | Pin], mode: PrecisionMode) -> None:
    """Reject pins to a precision that `mode` does not offer.

    Raises
    ------
    UnsatisfiedPin
        If there is such a pin; the message names the modes that offer its precision.
    """
    for pin in (Pin.parse(pin) if isinstance(pin, str) else pin for pin in pins):
        wanted = dict(zip(_FIELDS, pin.fields, strict=False)).get("precision", ANY)
        if wanted not in (ANY, *mode.offered):
            others = [name for name, other in all_modes().items() if wanted in other.offered]
            raise UnsatisfiedPin(
                f"pin {pin.text!r} asks for precision {wanted}, which precision "
                f"{mode.name!r} does not offer: expected {' or '.join(mode.precisions)}"
                + (f"; --precision {' or '.join(others)} offers it" if others else "")
            )


def apply_pins(problem: PlanningProblem, pins: Iterable[str | Pin]) -> PlanningProblem:
    """Copy the problem with only the candidates that every matching pin allows.

    Raises
    ------
    UnsatisfiedPin
        If a pin matches no sub-graph; if it allows no candidate of a sub-graph that it matches (the
        message quotes the decline); or if several pins together leave a sub-graph no candidate.
    """
    parsed = [Pin.parse(pin) if isinstance(pin, str) else pin for pin in pins]
    for pin in parsed:
        matched = [node for node in problem.nodes if pin.matches(node)]
        if not matched:
            raise UnsatisfiedPin(_matches_nothing(problem, pin))
        for node in matched:
            if not any(pin.allows(option.decision) for option in node.options):
                raise UnsatisfiedPin(_not_possible(pin, node))
    for node in problem.nodes:
        _check_conflict(node, [pin for pin in parsed if pin.matches(node)])
    nodes = tuple(
        _pinned(node, [pin for pin in parsed if pin.matches(node)]) for node in problem.nodes
    )
    return replace(problem, nodes=nodes)


def _pinned(node: PricedSubgraph, pins: list[Pin]) -> PricedSubgraph:
    """Remove the candidates that `pins` do not allow; they become declines that quote the pin."""
    kept, declines = [], list(node.declines)
    for option in node.options:
        against = next((pin for pin in pins if not pin.allows(option.decision)), None)
        if against is None:
            kept.append(option)
            continue
        declines.append(
            Decline(
                subgraph=node.id,
                operator=", ".join(node.operators),
                decision=str(option.decision),
                got=f"the pin {against.text!r}",
                expected="a decision that it allows",
            )
        )
    return replace(node, options=tuple(kept), declines=tuple(declines))


def _check_conflict(node: PricedSubgraph, pins: list[Pin]) -> None:
    if not any(all(pin.allows(option.decision) for pin in pins) for option in node.options):
        texts = " and ".join(repr(pin.text) for pin in pins)
        raise UnsatisfiedPin(
            f"pins {texts} together leave sub-graph {node.id} ({', '.join(node.operators)}) "
            f"without a candidate. Its candidates: {_candidates(node)}"
        )


def _matches_nothing(problem: PlanningProblem, pin: Pin) -> str:
    ids = [node.id for node in problem.nodes]
    names = [name for node in problem.nodes for name in node.names]
    operators = sorted({operator for node in problem.nodes for operator in node.operators})
    return (
        f"pin {pin.text!r} matches no sub-graph: {pin.pattern.pattern!r} is compared, as a whole, "
        f"with ids ({_some(ids)}), names ({_some(names)}) and operators ({_some(operators)})"
    )


def _not_possible(pin: Pin, node: PricedSubgraph) -> str:
    reasons = [str(d) for d in node.declines if pin.allows(Decision.parse(d.decision))]
    why = "; ".join(reasons) or "no unit offers it"
    return (
        f"pin {pin.text!r} cannot be honoured for sub-graph {node.id} "
        f"({', '.join(node.operators)}): {why}. Its candidates: {_candidates(node)}"
    )


def _candidates(node: PricedSubgraph) -> str:
    return ", ".join(str(option.decision) for option in node.options)


def _some(items: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(items[:most]) or "none"
    return f"{shown}, ..." if len(items) > most else shown
