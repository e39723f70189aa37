"""Threads of numpy's matrices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute with small matrices on one thread: several would only wait for each other."""
    try:
        limited = threadpool_limits(1, "blas")
    except UnicodeDecodeError:
        # threadpoolctl cannot read names of loaded libraries that are not UTF-8.
        yield
        return
    with limited:
        yield
