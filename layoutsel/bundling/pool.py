"""Parallel compilation in child processes that fail independently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue

from layoutsel.bundling.compile import Order
from layoutsel.compile.measuring import CANDIDATE_LIMIT_S
from layoutsel.device.manifest import ProgramEntry
from layoutsel.device.outcome import Failure
from layoutsel.device.worker import Reply, Worker

PROCESSES = 2
"""Number of child processes that compile at the same time."""

Compiled = tuple[ProgramEntry, ...] | Failure
"""Programs of an order, or its failure."""
OnCompiled = Callable[[int, int, str], None]
"""Function that receives the number of finished orders, of all orders, and the last label."""


def compile_all(
    orders: Sequence[Order], labels: Sequence[str], on_compiled: OnCompiled | None = None
) -> list[Compiled]:
    """Compile orders; returns the programs or the failure of each."""
    outcomes: list[Compiled] = []
    idle: SimpleQueue[Worker] = SimpleQueue()
    with ThreadPoolExecutor(PROCESSES) as pool, ExitStack() as workers:
        for _ in range(PROCESSES):
            worker = Worker(
                "layoutsel.bundling.compile:compile_order", time_limit_s=CANDIDATE_LIMIT_S
            )
            idle.put(workers.enter_context(worker))

        def compile_one(order: Order) -> Compiled:
            worker = idle.get()
            try:
                reply = worker.call(order)
            finally:
                idle.put(worker)
            return reply.value if isinstance(reply, Reply) else reply

        try:
            for label, outcome in zip(labels, pool.map(compile_one, orders), strict=True):
                outcomes.append(outcome)
                if on_compiled is not None:
                    on_compiled(len(outcomes), len(orders), label)
        except BaseException:  # after Ctrl-C, waiting orders must not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcomes
