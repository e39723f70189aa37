"""Errors of requests that a controller gives no answer to."""

from __future__ import annotations

from collections.abc import Iterable

from layoutsel.cluster.attempt import ClusterRequest
from layoutsel.errors import RunTimeout
from tvm_passes.errors import LayoutselError


def no_route(lost: Iterable[str]) -> LayoutselError:
    """No route avoids the lost nodes."""
    return LayoutselError(
        f"no route is left: {_names(lost)} lost; expected a route that avoids them in the "
        f"distribution. Restore the nodes, or deploy with a local fallback"
    )


def too_many_attempts(
    request: ClusterRequest, attempts: int, lost: Iterable[str]
) -> LayoutselError:
    """All attempts at a request failed."""
    return LayoutselError(
        f"request {request.number}: given up after {attempts} attempts; "
        f"nodes without work: {_names(lost)}"
    )


def too_late(request: ClusterRequest, limit_s: float) -> RunTimeout:
    """A request took longer than its time limit, seconds."""
    tasks = request.attempt.tasks if request.attempt is not None else ()
    runs = (f"segment {one.segment.id!r} on node {one.segment.node!r}" for one in tasks)
    return RunTimeout(
        f"request {request.number}: no answer within {limit_s:g} s; it waits for "
        f"{', '.join(runs) or 'its outputs'}"
    )


def _names(nodes: Iterable[str]) -> str:
    return ", ".join(sorted(nodes)) or "none"
