"""A stage of a multi-exit network that is held until a test lets it go on."""

from __future__ import annotations

import threading

LIMIT_S = 30
"""Longest wait of a test, seconds."""


class Gate:
    """Holds a stage from the time it is armed until it is opened."""

    def __init__(self, slow, *stages):
        self.is_armed, self.reached, self._open = False, threading.Event(), threading.Event()
        self._stages = stages
        slow(self._hold)

    def _hold(self, stage):
        if self.is_armed and stage in self._stages:
            self.reached.set()
            self._open.wait(LIMIT_S)

    def open(self):
        self._open.set()
