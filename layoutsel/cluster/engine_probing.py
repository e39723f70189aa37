"""Time that an engine takes by itself, measured once on this machine and then remembered.

A network of three tiny layers runs on two emulated nodes in three ways, which differ in the numbers
of segments and messages alone.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from onnx import ModelProto

from layoutsel.cluster.building import build
from layoutsel.cluster.classes import machine_classes, plan_class
from layoutsel.cluster.deployed_network import DeployedNetwork
from layoutsel.cluster.deploying import EMULATED, LOCAL, RAY, deploy
from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.engine_times import EngineProfile, EngineTimes, kept_name
from layoutsel.cluster.events import SegmentRan
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.metrics import LATENCY
from layoutsel.cluster.own_load import OwnLoad
from layoutsel.cluster.placed import placed_distributions
from layoutsel.cluster.stage_times import stage_times
from layoutsel.cluster.topology import SCHEMA_VERSION, Header, Link, Node, Topology
from layoutsel.compile.options import Options
from layoutsel.cost.probing import remembered
from layoutsel.runtime.loading import load
from layoutsel.runtime.samples import random_inputs
from layoutsel.zoo.architectures.builder import NetworkBuilder

_LOG = logging.getLogger(__name__)

_HERE, _THERE = "here", "there"
"""Nodes of the probe."""
_WAYS = ((_HERE, _HERE, _HERE), (_HERE, _THERE, _THERE), (_HERE, _THERE, _HERE))
"""Nodes of the three layers: one segment; two, and two messages; three, and two messages."""
_SHAPE = (1, 8, 1, 16)
"""Shape of all tensors of the probe."""
_WAITS_US = (0.0, 1e3, 4e3, 16e3)
"""Waiting times of nodes: round trips of the link."""
_TRIPS = 1.5
"""Waiting time of nodes, relative to the longest round trip: messages take longer than that."""
_BUSY, _AGAIN_S = 0.1, 600.0
"""Share of the processors from which other work disturbs the measurement, and the age from which it
is then repeated, seconds."""
_ROUNDS, _REQUESTS = 3, 12
"""Number of rounds of all ways, and of requests of a way in a round; the first is not counted."""


def engine_profile(engine: str, *, folder: Path | None = None) -> EngineProfile:
    """Time that an engine takes by itself on this machine.

    The first call measures, which takes some seconds; later ones read from `folder`. Times of a
    busy machine are measured again some minutes later. The links of a cluster of Ray are measured
    through the engine, and contain its time.

    Parameters
    ----------
    engine
        One of :data:`layoutsel.cluster.deploying.ENGINES`.
    folder
        Folder of the results; by default the user's cache folder.

    Raises
    ------
    LayoutselError
        If the probe cannot be compiled.
    """
    if engine not in (LOCAL, EMULATED):
        return EngineProfile()
    name = kept_name(engine)
    return remembered(EngineProfile, name, partial(probe, engine), folder, _is_current)


def _is_current(profile: EngineProfile, age_s: float) -> bool:
    return profile.others_busy < _BUSY or age_s < _AGAIN_S


def engine_between(topology: Topology, engine: str | None = None) -> EngineTimes:
    """Time that an engine takes by itself if requests cross the links of a topology.

    Parameters
    ----------
    topology
        Nodes and links.
    engine
        Name of the engine; None for emulated nodes if all are this machine, else for Ray.

    Raises
    ------
    LayoutselError
        If the probe cannot be compiled.
    """
    if engine is None:
        is_here = not any(node.machine for node in topology.computing)
        engine = EMULATED if is_here else RAY
    longest_us = max((link.rtt_us for link in topology.links), default=0.0)
    return engine_profile(engine).at(_TRIPS * longest_us)


def probe(engine: str) -> EngineProfile:
    """Measure the times of an engine; errors as in :func:`engine_profile`."""
    options: dict[str, Any] = {"cost": "roofline", "verify_speed": False, "calibrate": False}
    model = _layers()
    (one,) = machine_classes(_topology(0.0), Path())
    planned = plan_class(model, one, Options(**options))
    atoms = {f"a{number}": (node.id,) for number, node in enumerate(planned.problem.nodes)}

    def ways(wait_us: float) -> Iterator[Distributions]:
        routes = MessageRoutes(_topology(wait_us))
        for nodes in _WAYS:
            yield placed_distributions(
                [planned], atoms, dict(zip(atoms, nodes, strict=True)), routes
            )

    with tempfile.TemporaryDirectory() as folder:
        artifacts = build(model, next(ways(0.0)), folder, **options)
        alone = _Way(engine, next(ways(0.0)), artifacts)
        others: dict[float, tuple[_Way, _Way]] = {}
        for wait_us in _WAITS_US:
            _, two, three = (_Way(engine, way, artifacts) for way in ways(wait_us))
            others[wait_us] = two, three
        own_load = OwnLoad()
        for _ in range(_ROUNDS):
            for way in (alone, *(way for held in others.values() for way in held)):
                way.run()
        others_busy = own_load.state().others_busy
        if others_busy >= _BUSY:
            _LOG.warning(
                "other work took %.0f %% of the processors while the engine %r was timed: it will "
                "be timed again in some minutes",
                100 * others_busy,
                engine,
            )
        file = artifacts[one.name]
        bare_us, _ = stage_times(load(file), ["a0"], threads=1)["a0"]
    return EngineProfile(
        waits_us=_WAITS_US,
        times=tuple(_times(alone, list(others.values()))),
        bare_us=max(bare_us - planned.plan.cost_us / len(atoms), 0.0),
        others_busy=others_busy,
    )


def _times(alone: _Way, others: Sequence[tuple[_Way, _Way]]) -> Iterator[EngineTimes]:
    """Yield the times at each waiting time, from the ways of two and of three segments."""
    request_us, call_us = median(alone.own_us), median(alone.call_us)
    # Both ways differ by a segment, which does not depend on the wait for messages.
    more_us = median(median(three.own_us) - median(two.own_us) for two, three in others)
    segment_us = max(more_us, 0.0)
    for two, three in others:
        own_us = median(two.own_us) + median(three.own_us) - 2 * request_us - 3 * segment_us
        yield EngineTimes(
            request_us=request_us,
            call_us=call_us,
            segment_us=segment_us,
            message_us=max(own_us / 4, 0.0),
            wake_us=max(median((*two.call_us, *three.call_us)) - call_us, 0.0),
        )


class _Way:
    """Requests over one way of the probe.

    Parameters
    ----------
    engine
        Engine to measure.
    planned
        Distribution of the probe.
    artifacts
        Compiled probe by class.
    """

    def __init__(self, engine: str, planned: Distributions, artifacts: Mapping[str, Path]) -> None:
        self.engine, self.planned, self.artifacts = engine, planned, artifacts
        (route,) = planned[LATENCY].routes
        self._sent_us = sum(one.us for one in route.transfers) if engine == EMULATED else 0.0
        self._compute_us = sum(one.us for one in route.segments)
        self.own_us: list[float] = []
        """Time of each request that is neither of segments nor of links, microseconds."""
        self.call_us: list[float] = []
        """Mean time of a call of a segment in each request, without its layers, microseconds."""

    def run(self) -> None:
        """Answer requests, one after the other."""
        with deploy(self.planned, LATENCY, self.artifacts, engine=self.engine) as deployed:
            inputs = random_inputs(deployed.inputs)
            for number in range(_REQUESTS):
                start_s = time.perf_counter()
                deployed(*inputs)
                us = 1e6 * (time.perf_counter() - start_s)
                runs = _last_runs_us(deployed)
                if number:
                    self.own_us.append(us - self._sent_us - sum(runs))
                    self.call_us.append((sum(runs) - self._compute_us) / len(runs))


def _last_runs_us(deployed: DeployedNetwork) -> list[float]:
    """Times of the segments of the last request, microseconds."""
    ran = [one for one in deployed.timeline.events if isinstance(one, SegmentRan)]
    return [one.times.compute_us for one in ran if one.request == ran[-1].request]


def _topology(rtt_us: float) -> Topology:
    return Topology(
        directed=False,
        multigraph=False,
        graph=Header(schema_version=SCHEMA_VERSION, origin=_HERE),
        nodes=tuple(Node(id=node, threads=1) for node in (_HERE, _THERE)),
        links=(Link(source=_HERE, target=_THERE, gbps=1.0, rtt_us=rtt_us),),
    )


def _layers() -> ModelProto:
    """Three convolutions in a row, of almost no work."""
    builder = NetworkBuilder("engine")
    x = builder.input("x", _SHAPE)
    channels = _SHAPE[1]
    for _ in _WAYS[0]:
        x = builder.op("Conv", x, (channels, channels, 1, 1), (channels,), channels=channels)
    builder.output(x, _SHAPE)
    return builder.model()
