"""A small table of networks with made-up accuracies, for tests."""

from __future__ import annotations

import itertools

import numpy as np

from layoutsel.search.tabular import NetworkTable


def small_table(operations: tuple[int, ...] = (0, 1, 3), seed: int = 0) -> NetworkTable:
    """All cells of some operations; accuracy grows with the convolutions on their longest path."""
    random = np.random.default_rng(seed)
    codes = np.array(list(itertools.product(operations, repeat=6)))
    count = len(codes)
    table = NetworkTable(codes, {}, {})
    depths = table.cells._depths()
    accuracy = 0.5 - 0.45 * np.exp(-depths[:, 1] - 0.3 * depths[:, 0])
    accuracy = np.where(table.cells.is_dead, 0.1, accuracy + random.normal(0, 0.004, count))
    cost = np.array([0.1, 0.2, 1.0, 2.0, 0.7])
    us = 100 * (1 + cost[codes].sum(axis=1)) * random.uniform(0.98, 1.02, count)
    return NetworkTable(codes, {"data": accuracy}, {"device": us})
