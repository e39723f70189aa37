"""ONNX models of trained networks, whose nodes have the names of parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, numpy_helper

from layoutsel.search.networks import write_network
from layoutsel.search.parts import PartGraph

PartWeights = Mapping[str, tuple[np.ndarray, ...]]
"""Weights by part, in the order in which its ONNX nodes read them."""


def write_trained(graph: PartGraph, weights: PartWeights, name: str = "network") -> ModelProto:
    """Write a network with its weights.

    Parameters
    ----------
    graph
        Parts of the network.
    weights
        Weights of all parts.
    name
        Name of the model.
    """
    model = write_network(graph, name)
    given = [array for part in graph.parts for array in weights[part.name]]
    for held, array in zip(model.graph.initializer, given, strict=True):
        assert tuple(held.dims) == array.shape, f"{held.name}: {held.dims} and {array.shape}"
        held.CopyFrom(numpy_helper.from_array(array.astype(np.float32), held.name))
    return model


def part_of(node: str) -> str:
    """Part that an ONNX node of a network belongs to."""
    return node.partition("/")[0]
