"""Signals from one thread to another, given once: the cheapest that Python has."""

from __future__ import annotations

import threading
from contextlib import suppress


def unset_signal() -> threading.Lock:
    """Make a lock that is taken: another thread's release is a signal to the one that waits."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def give(signal: threading.Lock) -> None:
    """Give a signal, which may have been given already."""
    with suppress(RuntimeError):
        signal.release()
