"""Networks that other searches ask: at random, local, and the samplers of optuna."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import optuna

from layoutsel.search.dominance import non_dominated
from layoutsel.search.space import Architecture, Space
from search.joint_task import QUERIES, Ask, Task


def feasible(task: Task, random: np.random.Generator) -> Iterator[Architecture]:
    """Yield different random networks that fit."""
    seen: set[Architecture] = set()
    while True:
        network = task.space.draw(random)
        if network not in seen and task.point(network) is not None:
            seen.add(network)
            yield network


def random_networks(task: Task, seed: int) -> list[Architecture]:
    return list(itertools.islice(feasible(task, np.random.default_rng(seed)), QUERIES))


def local(task: Task, seed: int) -> list[Architecture]:
    """Neighbours of non-dominated networks, one choice changed; a tenth at random (Pareto local search)."""
    random = np.random.default_rng(seed)
    drawn = feasible(task, random)
    known = dict.fromkeys(itertools.islice(drawn, QUERIES // 10))
    while len(known) < QUERIES:
        networks = list(known)
        us, accuracy = np.array([task.us(one) for one in networks]), np.array(task.oracle(networks))
        front = non_dominated(us, accuracy, np.zeros((len(us), 0)))
        fresh = [one for i in front for one in neighbours(task, networks[i]) if one not in known]
        chosen = (
            fresh[random.integers(len(fresh))]
            if fresh
            else next(one for one in drawn if one not in known)
        )
        if task.point(chosen) is not None:
            known[chosen] = None
    return list(known)


def neighbours(task: Task, network: Architecture) -> Iterator[Architecture]:
    for index, cell in enumerate(task.space.cells):
        for operation, channels in itertools.product(cell.operations, cell.channels):
            operations, widths = list(network.operations), list(network.channels)
            operations[index], widths[index] = (operation,), channels
            other = Architecture(channels=tuple(widths), operations=tuple(operations))
            if other != network and is_legal(task.space, other):
                yield other


def is_legal(space: Space, network: Architecture) -> bool:
    reads = (space.stem_channels, *network.channels)
    return all(
        operation in space.offered(index, reads[index], network.channels[index])[0]
        for index, (operation,) in enumerate(network.operations)
    )


def sampled(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Ask:
    """Ask by a sampler of optuna; illegal networks and those that do not fit cost no query."""

    def ask(task: Task, seed: int) -> list[Architecture]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler(seed))
        known: dict[Architecture, None] = {}
        for _ in range(40 * QUERIES):
            if len(known) >= QUERIES:
                break
            trial = study.ask()
            operations, widths = [], []
            for cell in task.space.cells:
                operations.append(
                    (trial.suggest_categorical(f"{cell.name} operation", cell.operations),)
                )
                widths.append(trial.suggest_categorical(f"{cell.name} channels", cell.channels))
            network = Architecture(channels=tuple(widths), operations=tuple(operations))
            us = task.us(network) if is_legal(task.space, network) else np.inf
            if np.isinf(us):
                study.tell(trial, [1e7, 0.0])
                continue
            known[network] = None
            study.tell(trial, [us, task.oracle([network])[0]])
        return list(known)

    return ask
