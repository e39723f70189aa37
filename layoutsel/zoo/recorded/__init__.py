"""Networks of PyTorch's libraries, recorded as ONNX graphs without weights.

``bench/zoo_export`` exports them. The graphs are in one archive, the facts about them in a JSON
document. Weights are random numbers, made when a network is loaded.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from onnx import ModelProto

from layoutsel import documents
from layoutsel.errors import InvalidModel
from layoutsel.zoo.recorded.filling import fill

PREFIX = "zoo:"
"""Start of the names of these models, such as ``zoo:resnet34``."""
_SIZE = "@"
"""Separator between a name and a size: ``zoo:resnet34@160``."""

GRAPHS = Path(__file__).with_name("graphs.tar.xz")
"""Archive of the graphs, a file ``NAME@SIZE.onnx`` for each network and size."""
TABLE = Path(__file__).with_name("networks.json")
"""Document of type :class:`RecordedTable`."""
SCHEMA_VERSION = 1
"""Version of the document."""


@dataclass(frozen=True, kw_only=True)
class SourcePackage:
    """Python package whose code built the networks."""

    version: str
    """Version of the package."""
    licence: str
    """Licence of its code, as an SPDX identifier."""


@dataclass(frozen=True, kw_only=True)
class RecordedNetwork:
    """A network of the archive."""

    name: str
    """Name, without :data:`PREFIX`."""
    families: tuple[str, ...]
    """Family of the architecture, followed by those of its backbone."""
    package: str
    """Key of :attr:`RecordedTable.packages`."""
    source: str
    """Name of the network or class within the package."""
    exporter: str
    """Exporter of PyTorch that wrote the graph: ``legacy`` or ``dynamo``."""
    size_of: str
    """Meaning of a size: pixels of a side, tokens, samples, frames or steps."""
    sizes: tuple[int, ...]
    """Sizes of the input that were exported; the first is the default."""
    weights: int
    """Number of elements of all weights, at the default size."""


@dataclass(frozen=True, kw_only=True)
class RecordedTable:
    """All networks of the archive."""

    schema_version: int
    """Version of the document."""
    packages: Mapping[str, SourcePackage]
    """Packages of the networks, by name."""
    networks: tuple[RecordedNetwork, ...]
    """Networks, by name in ascending order."""


@cache
def recorded_networks() -> Mapping[str, RecordedNetwork]:
    """Return the networks of the archive, by name."""
    table = documents.from_json(RecordedTable, documents.load_json(TABLE), file=str(TABLE))
    return {network.name: network for network in table.networks}


def recorded_names() -> tuple[str, ...]:
    """Return ``NAME@SIZE`` of each graph of the archive."""
    return tuple(
        f"{network.name}{_SIZE}{size}"
        for network in recorded_networks().values()
        for size in network.sizes
    )


def recorded(name: str, seed: int = 0) -> ModelProto:
    """Load a network and fill it with random weights.

    Parameters
    ----------
    name
        Name of a network, optionally followed by ``@`` and one of its sizes.
    seed
        Seed of the weights; equal seeds give equal models.

    Raises
    ------
    InvalidModel
        If there is no network of that name, or it was not exported at that size.
    """
    model = recorded_graph(name)
    fill(model, seed)
    return model


def recorded_graph(name: str) -> ModelProto:
    """Load a network without its weights; parameters and errors as in :func:`recorded`."""
    name, has_size, size = name.partition(_SIZE)
    networks = recorded_networks()
    if name not in networks:
        raise InvalidModel(f"no model {PREFIX}{name}: choose one of {', '.join(networks)}")
    sizes = [str(one) for one in networks[name].sizes]
    if has_size and size not in sizes:
        raise InvalidModel(
            f"model {PREFIX}{name}{_SIZE}{size}: got size {size!r}; expected one of "
            f"{', '.join(sizes)} ({networks[name].size_of})"
        )
    with tarfile.open(GRAPHS, "r:xz") as archive:
        stream = archive.extractfile(f"{name}{_SIZE}{size if has_size else sizes[0]}.onnx")
        assert stream is not None, "the archive holds files alone"
        return ModelProto.FromString(stream.read())
