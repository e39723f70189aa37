"""Where and how a tensor lies: shared by cost models and planning problems."""

from __future__ import annotations

from typing import NamedTuple

HOST = "host"
"""The pseudo unit that hands over the model's inputs and takes its outputs; also the name of the host's memory."""

PLAIN = "NCHW"
"""The layout of the model's inputs and outputs."""


class Place(NamedTuple):
    """How and where a tensor lies, or is wanted."""

    layout: str = PLAIN
    unit: str = HOST
    memory: str = HOST


OUTSIDE = Place()
"""Where the model's inputs and outputs lie."""
