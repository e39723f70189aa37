"""Projection of selectors on networks: the most probable one that keeps all limits, proven.

For each transmission cell, precision and link, a mixed-integer linear programme chooses an
operation and a device for each pair of nodes, and the number of channels of each sent tensor. It
maximises the sum of the logarithms of the probabilities. A number of channels has the probability
that so many gates are open; the likeliest channels are sent. Only some numbers can be chosen if a
tensor has more channels than :data:`~layoutsel.search.offload.projection_programme.COUNTS`.
Prices are those of :mod:`layoutsel.search.offload.times`, at full widths.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layoutsel.search.front import NoNetwork
from layoutsel.search.offload.node_tensors import ProjectedNetwork
from layoutsel.search.offload.projection_programme import ProjectionProgramme
from layoutsel.search.offload.settings import OffloadLimits, SelectorState
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.times import OffloadTimes
from layoutsel.search.offload.transmitted import PRECISIONS


def project(
    shape: SupernetShape,
    times: OffloadTimes,
    state: SelectorState,
    limits: OffloadLimits,
    *,
    gates: Callable[[str, np.ndarray], np.ndarray] = lambda _name, gate: gate,
) -> ProjectedNetwork:
    """Find the most probable network that keeps the limits.

    Parameters
    ----------
    shape
        Shape of the supernet.
    times
        Prices.
    state
        Probabilities of the selectors.
    limits
        Limits of the time and the sent bytes.
    gates
        Replaces the probabilities that order the channels of a tensor, for comparisons.

    Raises
    ------
    NoNetwork
        If no network keeps the limits; names the tightest one.
    """
    found = [
        ProjectionProgramme(shape, times, state, limits, name, position, link)
        for name, share in zip(PRECISIONS, state.precision, strict=True)
        for position in range(len(shape.cells))
        for link in range(len(times.links))
        if share > 0
    ]
    solved = [one for one in found if one.solve()]
    if not solved:
        raise NoNetwork(tightest(found, limits))
    return max((one.network(gates) for one in solved), key=lambda one: one.score)


def tightest(found: list[ProjectionProgramme], limits: OffloadLimits) -> str:
    """Name the limit that no network of these programmes keeps, and the least value."""
    least_us = min(one.least("us") for one in found)
    least_bytes = min(one.least("bytes") for one in found)
    if limits.us is not None and (limits.bytes is None or least_us > limits.us):
        return (
            f"no network of the space takes at most {limits.us / 1e3:.3f} ms: the fastest one "
            f"takes {least_us / 1e3:.3f} ms. Allow more time, or offer smaller operations"
        )
    if limits.bytes is not None and (limits.us is None or least_bytes > limits.bytes):
        return (
            f"no network of the space sends at most {limits.bytes:.0f} bytes: the least is "
            f"{least_bytes:.0f} bytes. Allow more, or offer cells with fewer points"
        )
    assert limits.us is not None
    assert limits.bytes is not None
    return (
        f"no network of the space takes at most {limits.us / 1e3:.3f} ms and sends at most "
        f"{limits.bytes:.0f} bytes, although each limit alone can be kept. Allow more of one"
    )
