"""Several processes that compile at once; what crashes, hangs or refuses in one harms no other."""

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

Compiled = tuple[ProgramEntry, ...] | Failure
OnCompiled = Callable[[int, int, str], None]
"""Told after every order: how many are done, of how many, and its label."""


def compile_all(
    orders: Sequence[Order], labels: Sequence[str], on_compiled: OnCompiled | None = None
) -> list[Compiled]:
    """The programs of each of `orders`, or why there are none."""
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
        except BaseException:  # Ctrl-C: the processes end, and nothing new is begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcomes
