"""End of this package's threads before the interpreter unloads the libraries that they use."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from typing import Protocol

END_S = 2.0
"""Longest wait for threads at the end of the process, seconds."""


class Stoppable(Protocol):
    """Owner of threads."""

    def stop(self, *, cancel: bool) -> None:
        """End the threads of this process, and wait for them; `cancel` ends active runs as well."""


living: weakref.WeakSet[Stoppable] = weakref.WeakSet()
"""Owners of threads to stop at exit."""
ending: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Their threads. The last one to end frees code and weights, when its owner is gone already."""


@atexit.register
def _end_all() -> None:
    for owner in list(living):
        owner.stop(cancel=True)
    end_s = time.monotonic() + END_S
    for thread in list(ending):
        thread.join(max(0.0, end_s - time.monotonic()))
