"""Numbers of the tensors that a chain of stages passes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layoutsel.device.signature import Signature

Slots = tuple[int, ...]
"""Numbers of some tensors."""


@dataclass(frozen=True, kw_only=True)
class ChainSlots:
    """Numbers of the tensors of a chain; its inputs come first."""

    count: int
    """Number of tensors."""
    kept: Slots
    """Outputs of the chain."""
    reads: tuple[Slots, ...]
    """Tensors that each stage reads."""
    writes: tuple[Slots, ...]
    """Tensors that each stage computes."""
    frees: tuple[Slots, ...]
    """Tensors that nothing needs after each stage."""

    @property
    def steps(self) -> tuple[Sequence[Slots], Sequence[Slots], Sequence[Slots]]:
        """:attr:`reads`, :attr:`writes` and :attr:`frees`."""
        return self.reads, self.writes, self.frees


def chain_slots(
    inputs: Sequence[Signature],
    outputs: Sequence[Signature],
    stages: Sequence[tuple[Sequence[Signature], Sequence[Signature]]],
) -> ChainSlots:
    """Number the tensors of a chain.

    Parameters
    ----------
    inputs, outputs
        Tensors that the chain reads, and that it returns.
    stages
        Tensors that each stage reads and computes.
    """
    slots: dict[str, int] = {}
    for one in (*inputs, *(one for _, made in stages for one in made)):
        slots.setdefault(one.name, len(slots))
    kept = _slots_of(outputs, slots)
    last = {slots[one.name]: number for number, (read, _) in enumerate(stages) for one in read}
    return ChainSlots(
        count=len(slots),
        kept=kept,
        reads=tuple(_slots_of(read, slots) for read, _ in stages),
        writes=tuple(_slots_of(made, slots) for _, made in stages),
        frees=tuple(
            tuple(slot for slot, n in last.items() if n == number and slot not in kept)
            for number in range(len(stages))
        ),
    )


def _slots_of(tensors: Sequence[Signature], slots: Mapping[str, int]) -> Slots:
    return tuple(slots[one.name] for one in tensors)
