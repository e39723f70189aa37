"""Pause of garbage collection during imports."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """Collect no garbage within the context.

    An import creates many objects that stay. The collections that it triggers visit all of them,
    which takes a sixth of the time of importing TVM.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
