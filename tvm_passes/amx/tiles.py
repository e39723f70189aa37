"""AMX tiles in TIR: the instructions, and the assignment of operands to the eight registers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu.emit import Buffer, TirExpr

REGISTERS = 8
"""Number of tile registers."""
ROWS = 16
"""Rows of a register."""
ROW_BYTES = 64
"""Bytes of a row: 32 elements of bfloat16, or 16 of float32."""
DEPTH = 32
"""Elements of bfloat16 in a row of the left operand: the number that one product sums over."""
LANES = 16
"""Columns of a product."""


def _intrinsic(name: str, *arguments: TirExpr) -> None:
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{name}", *arguments))


def _register(number: int) -> TirExpr:
    return tirx.const(number, "int8")


def _address(buffer: Buffer, offset: TirExpr) -> TirExpr:
    return tirx.address_of(buffer[offset])


def configure(shapes: list[tuple[int, int]]) -> None:
    """Emit the configuration of the registers in the executing thread.

    `shapes` are (rows, bytes per row).
    """
    rows = bytes(rows for rows, _ in shapes).ljust(16, b"\0")
    widths = struct.pack(f"<{len(shapes)}H", *(width for _, width in shapes)).ljust(32, b"\0")
    palette = b"\1".ljust(16, b"\0") + widths + rows
    words = T.alloc_buffer((len(palette) // 8,), "int64")
    for index, (word,) in enumerate(struct.iter_unpack("<q", palette)):
        T.buffer_store(words, tirx.const(word, "int64"), [index])
    _intrinsic("ldtilecfg", _address(words, 0))


def release() -> None:
    """Emit the release of the tile state.

    Context switches are then faster, and other code finds the state that it expects.
    """
    _intrinsic("tilerelease")


def zero(register: int) -> None:
    """Emit the clearing of a register."""
    _intrinsic("tilezero", _register(register))


def load(register: int, buffer: Buffer, offset: TirExpr, stride: TirExpr) -> None:
    """Emit the load of a register from element `offset` on; rows are `stride` bytes apart."""
    where = _address(buffer, offset)
    _intrinsic("tileloadd64", _register(register), where, tirx.const(stride, "int64"))


def store(register: int, buffer: Buffer, offset: TirExpr, stride: int) -> None:
    """Emit the store of a register from element `offset` on; rows are `stride` bytes apart."""
    where = _address(buffer, offset)
    _intrinsic("tilestored64", _register(register), where, tirx.const(stride, "int64"))


def dot(accumulator: int, left: int, right: int) -> None:
    """Emit the product of two registers of bfloat16, added to a float32 accumulator."""
    _intrinsic("tdpbf16ps", *map(_register, (accumulator, left, right)))


class Operands:
    """Registers that hold operands while code is emitted, replaced in least recently used order."""

    def __init__(self, registers: range) -> None:
        self._held: dict[int, Hashable | None] = dict.fromkeys(registers)

    def get(self, key: Hashable, fetch: Callable[[int], Any]) -> int:
        """Return the register that holds `key`; if there is none, `fetch` emits its load."""
        register = next((r for r, held in self._held.items() if held == key), None)
        if register is None:
            register = next(iter(self._held))
            fetch(register)
        del self._held[register]
        self._held[register] = key
        return register
