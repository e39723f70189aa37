"""Demonstration on this machine: both searches on signals, and their networks on two nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from layoutsel.cluster.topology import Topology
from layoutsel.core.files import make_folder
from layoutsel.device.threads import available_cores
from layoutsel.search.deploying import measure
from layoutsel.search.found import TUNE, FoundNetwork
from layoutsel.search.joint.question import joint_question
from layoutsel.search.joint.search import search_joint
from layoutsel.search.offload.settings import OffloadLimits, OffloadRecipe
from layoutsel.search.offload.spaces import offload_space
from layoutsel.search.offload_run import offload_question, search_offload
from layoutsel.search.pictures import draw
from layoutsel.search.run_folder import RunFolder
from layoutsel.search.two_devices import DEVICE, two_devices

DATA = "mnist1d"
"""Data set."""
LINK = "2Mbit/s,2ms"
"""Link between both nodes."""
DEVICE_LOAD = 0.9
"""Share of the device's processors that other work occupies: it is ten times slower."""
DEVICE_BYTES = 60e3
"""Memory of the device in the joint search: larger networks must be divided."""
MAX_US = 10e3
"""Hard limit on the time of a request in the search for two devices, microseconds."""
RECIPE = OffloadRecipe(
    warm_epochs=5,
    search_epochs=6,
    sweep_epochs=3,
    time_weights=(0.05, 0.5, 2.0),
    drawn_networks=1,
    trial_epochs=3,
    retrain_epochs=12,
)
"""Training of the search for two devices."""
QUERIES, NETWORKS, EPOCHS, RETRAIN_EPOCHS = 48, 3, 15, 8
"""Settings of the joint search: networks that are asked and trained, and passes over the data."""

Say = Callable[[str], None]
"""Function that shows a line of text."""


@dataclass(frozen=True, kw_only=True)
class DemonstratedSearch:
    """Results of a search, the most accurate network deployed."""

    kind: str
    """Kind of the search."""
    networks: tuple[FoundNetwork, ...]
    """Networks in ascending order of their time; one has a measurement."""
    pictures: tuple[Path, ...]
    """Pictures of the search."""

    @property
    def deployed(self) -> FoundNetwork:
        """Network with a measurement."""
        return next(one for one in self.networks if one.measured)


def demonstrate(
    folder: Path, say: Say, *, phase: Say = lambda _text: None
) -> tuple[DemonstratedSearch, ...]:
    """Search networks in both ways, deploy the most accurate one of each, and draw both searches.

    Parameters
    ----------
    folder
        Folder for both searches.
    say
        Function that shows a line of text.
    phase
        Function that shows the present step of a training.

    Raises
    ------
    LayoutselError
        If a step fails.
    """
    make_folder(folder)
    return (_offloaded(folder, say, phase), _joint(folder, say, phase))


def _offloaded(folder: Path, say: Say, phase: Say) -> DemonstratedSearch:
    space, limits = offload_space(DATA), OffloadLimits(us=MAX_US)
    say(f"search offload: {LINK}, at most {MAX_US / 1e3:g} ms")
    topology, statistics = two_devices(LINK, loads=(DEVICE_LOAD, 0.0))
    question = offload_question(space, topology, statistics, limits=limits, recipe=RECIPE)
    run = RunFolder.begin(folder / "offload", question, folder)
    found = search_offload(
        run,
        say,
        limits=limits,
        recipe=RECIPE,
        on_report=lambda one: phase(f"{one.phase}: pass {one.epoch} of {one.epochs}"),
        threads=len(available_cores()),
    )
    return _presented(run, found, say)


def _joint(folder: Path, say: Say, phase: Say) -> DemonstratedSearch:
    say(f"search joint: {LINK}, {DEVICE_BYTES / 1e3:g} kB of memory on the device")
    topology, statistics = two_devices(LINK, loads=(DEVICE_LOAD, 0.0))
    _limited(topology).save(folder / "topology.json")
    statistics.save(folder / "statistics.json")
    question = joint_question(
        folder / "topology.json",
        data=DATA,
        statistics=folder / "statistics.json",
        queries=QUERIES,
        networks=NETWORKS,
        epochs=EPOCHS,
        retrain_epochs=RETRAIN_EPOCHS,
    )
    run = RunFolder.begin(folder / "joint", question, folder)
    found = search_joint(
        run,
        say,
        progress=lambda one: phase(f"training {one.network}: pass {one.epoch} of {one.epochs}"),
        threads=len(available_cores()),
    )
    return _presented(run, found, say)


def _limited(topology: Topology) -> Topology:
    """Copy with a limit on the device's memory."""
    nodes = tuple(
        replace(node, memory_bytes=DEVICE_BYTES) if node.id == DEVICE else node
        for node in topology.nodes
    )
    return replace(topology, nodes=nodes)


def _presented(run: RunFolder, found: list[FoundNetwork], say: Say) -> DemonstratedSearch:
    """Deploy the most accurate network that two nodes run, and draw the search."""
    best = max(found, key=lambda one: (len(one.nodes), one.accuracies[TUNE]))
    made = measure(run, best, say)
    return DemonstratedSearch(
        kind=run.question.kind,
        networks=tuple(made if one is best else one for one in found),
        pictures=tuple(draw(run)),
    )
