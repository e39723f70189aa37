"""Log of a tuning run: MetaSchedule's messages, and the reasons of failed schedules."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOG_FILE = "tune.log"
"""Name of the log in the folder of records."""


class _Convenience(logging.FileHandler):
    """A log that drops lines when the disk is full, so that tuning continues."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore errors, as writing the records reports a full disk."""

    def close(self) -> None:
        """Close the file, and ignore errors of the last write."""
        with suppress(OSError):
            super().close()


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Append the messages of this process to the log in `folder`, within the context."""
    handler = _Convenience(folder / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    metaschedule = logging.getLogger("tvm.s_tir.meta_schedule")
    ours = logging.getLogger("layoutsel.tuning")
    before = metaschedule.level, metaschedule.propagate, ours.level
    metaschedule.propagate = False
    for logger in (metaschedule, ours):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in (metaschedule, ours):
            logger.removeHandler(handler)
        metaschedule.level, metaschedule.propagate, ours.level = before
        handler.close()
