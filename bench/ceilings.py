"""What the machine can do at most at the moment of asking: multiply-adds, tile products, bytes from memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm.ir import IRModule

from tvm_passes.amx import tiles
from tvm_passes.cpu import emit, host_target
from tvm_passes.cpu.host import vector_unit

Measure = Callable[[], float]
"""Measures a rate, in units of 1e9 per second, all threads together."""

_RUNS = 7
_ROUNDS = 200_000
"""Iterations of a loop of arithmetic; some milliseconds."""
_STREAM_BYTES = 256 << 20
"""Far more than caches hold."""


def _rate(work: float, function: Any, arguments: Sequence[Any]) -> Measure:
    def measure() -> float:
        times = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            function(*arguments)
            times.append(time.perf_counter() - start)
        return work / statistics.median(times) / 1e9

    return measure


def _compiled(
    shapes: Sequence[tuple[Sequence[int], str]], body: Callable[[list[emit.Buffer]], None]
) -> Any:
    function = emit.prim_func(shapes, body).with_attr("global_symbol", "ceiling")
    return tvm.compile(IRModule({"ceiling": function}), host_target())["ceiling"]


def multiply_adds(threads: int) -> Measure:
    """float32 operations by fused multiply-adds in registers."""
    unit = vector_unit(host_target())
    chains = unit.registers - 4  # as many independent sums as registers hold beside the operands

    def body(buffers: list[emit.Buffer]) -> None:
        operand, result = buffers
        with emit.parallel(threads) as thread:
            sums = [emit.Accumulator(unit.lanes) for _ in range(chains)]
            for each in sums:
                each.zero()
            factor = emit.Accumulator(unit.lanes)
            factor.set(emit.load(operand, 0, unit.lanes))
            with emit.serial(_ROUNDS):
                for each in sums:
                    each.set(each.value * factor.value + factor.value)
            for index, each in enumerate(sums):
                base = (thread * chains + index) * unit.lanes
                emit.store(result, each.value, base, unit.lanes)

    size = threads * chains * unit.lanes
    run = _compiled([((unit.lanes,), "float32"), ((size,), "float32")], body)
    operand = tvm.runtime.tensor(np.full(unit.lanes, 0.5, dtype=np.float32))
    result = tvm.runtime.tensor(np.zeros(size, dtype=np.float32))
    return _rate(2 * size * _ROUNDS, run, (operand, result))


def tile_products(threads: int) -> Measure:
    """Operations on bfloat16 by products of tiles in registers."""
    sums, operands = range(4), (range(4, 6), range(6, 8))

    def body(buffers: list[emit.Buffer]) -> None:
        (result,) = buffers
        with emit.parallel(threads) as thread:
            tiles.configure([(tiles.ROWS, tiles.ROW_BYTES)] * tiles.REGISTERS)
            for register in range(tiles.REGISTERS):
                tiles.zero(register)
            with emit.serial(_ROUNDS // 10):
                for index in sums:
                    tiles.dot(index, operands[0][index // 2], operands[1][index % 2])
            tiles.store(0, result, thread * (tiles.ROWS * tiles.LANES), tiles.ROW_BYTES)
            tiles.release()

    size = threads * tiles.ROWS * tiles.LANES
    run = _compiled([((size,), "float32")], body)
    result = tvm.runtime.tensor(np.zeros(size, dtype=np.float32))
    work = 2 * size * tiles.DEPTH * len(sums) * (_ROUNDS // 10)
    return _rate(work, run, (result,))


def stream(threads: int, size: int = _STREAM_BYTES, times: int = 1) -> Measure:
    """Bytes read in order, `times` times: by default once, from beyond the caches.

    Parameters
    ----------
    size
        Bytes that all threads read together.
    """
    unit = vector_unit(host_target())
    elements = size // 4 // threads
    chains = 8

    def body(buffers: list[emit.Buffer]) -> None:
        source, result = buffers
        with emit.parallel(threads) as thread:
            sums = [emit.Accumulator(unit.lanes) for _ in range(chains)]
            for each in sums:
                each.zero()
            with emit.serial(times), emit.serial(elements // (chains * unit.lanes)) as step:
                for index, each in enumerate(sums):
                    place = thread * elements + (step * chains + index) * unit.lanes
                    each.set(each.value + emit.load(source, place, unit.lanes))
            for index, each in enumerate(sums):
                place = (thread * chains + index) * unit.lanes
                emit.store(result, each.value, place, unit.lanes)

    sizes = (threads * elements, threads * chains * unit.lanes)
    run = _compiled([((size,), "float32") for size in sizes], body)
    source = np.random.default_rng(0).standard_normal(sizes[0], dtype=np.float32)
    result = tvm.runtime.tensor(np.zeros(sizes[1], dtype=np.float32))
    return _rate(4 * sizes[0] * times, run, (tvm.runtime.tensor(source), result))
