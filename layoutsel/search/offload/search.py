"""Search for networks on two devices, from the prices to trained and written parts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from layoutsel import documents
from layoutsel.search.dominance import non_dominated
from layoutsel.search.front import NoNetwork
from layoutsel.search.link_choice import ANY
from layoutsel.search.offload.node_tensors import ProjectedNetwork
from layoutsel.search.offload.noisy_selectors import with_noise
from layoutsel.search.offload.onnx_parts import write_parts
from layoutsel.search.offload.pricing import OffloadPrices, SlicedPrediction
from layoutsel.search.offload.projection import project
from layoutsel.search.offload.settings import (
    OffloadLimits,
    OffloadRecipe,
    RetrainTask,
    SelectorState,
    SupernetTask,
)
from layoutsel.search.offload.slicing import OffloadChoice, SlicedNetwork, slice_network
from layoutsel.search.offload.spaces import handmade_choice
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.times import OffloadTimes
from layoutsel.search.offload.training import TIME_LIMIT_S, OnReport, Training
from layoutsel.search.offload.transmitted import FLOAT32, PRECISIONS
from layoutsel.search.parts import parts_of
from layoutsel.search.space import Space

CHECKPOINT = "supernet.pt"
"""File of the supernet's state."""
TRIAL = "trial"
"""Name of short trainings that choose networks."""
TEACHER = "teacher.pt"
"""File of the network whose answers the found networks learn."""
_LEAST_STEP = 1e-3
"""Least step by which a limit is tightened, relative to it; it bounds the number of steps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OffloadSearch:
    """Question of a search."""

    space: Space
    """Networks to search."""
    prices: OffloadPrices
    """Prices on both devices."""
    limits: OffloadLimits = field(default_factory=OffloadLimits)
    """Hard limits."""
    recipe: OffloadRecipe = field(default_factory=OffloadRecipe)
    """Settings of the training."""
    precisions: tuple[str, ...] = (FLOAT32,)
    """Precisions of sent tensors to choose from."""
    frozen: tuple[str, ...] = ()
    """Kinds of selectors that keep their first values, for comparisons."""
    seed: int = 0
    """Seed of the data's parts, the weights, samples and the order of data."""
    threads: int = 1
    """Number of threads of the training."""
    limit_s: float = TIME_LIMIT_S
    """Time limit of all trainings, seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OffloadFound:
    """A network that was found, trained and sliced."""

    projected: ProjectedNetwork
    """Choice with its score, the bound of the score, and its time at full widths."""
    network: SlicedNetwork
    """Parts with their channels."""
    predicted: SlicedPrediction
    """Cost of the slices."""
    accuracies: Mapping[str, float]
    """Accuracy by part of the data."""
    models: Mapping[str, ModelProto]
    """ONNX models of both parts and the whole."""


def search(
    question: OffloadSearch,
    folder: Path,
    on_report: OnReport = lambda _report: None,
) -> Iterator[OffloadFound]:
    """Train a supernet, and yield networks of its selectors, each retrained.

    These are the most probable network of each phase, and of some that are drawn those that no
    other one beats in time and accuracy after a short training. All keep the limits. Selectors
    whose slices are found to keep no limit lead to none; if all are so, the network is one without
    preference, which was found before the training. An interrupted search goes on from the states
    in `folder`.

    Parameters
    ----------
    question
        Question of the search.
    folder
        Folder for the state of the supernet.
    on_report
        Receives a report about each pass over the data, repeated ones of a resumed search included.

    Raises
    ------
    NoNetwork
        If no network is found that keeps the limits; before any training.
    TrainingFailed
        If PyTorch is missing, or a training fails or takes too long.
    """
    shape = SupernetShape.of(question.space)
    times = question.prices.times(shape)
    certain = fitting(
        question, shape, times, unbiased(shape, question.precisions, len(times.links))
    )
    with Training(question.threads, question.limit_s) as training:
        states = list(training.supernet(supernet_task(question, times, folder), on_report))
        random, recipe = np.random.default_rng(question.seed), question.recipe
        noisy = [
            with_noise(state, random, recipe.draw_temperature)
            for state in states
            for _ in range(recipe.drawn_networks)
        ]
        probable = _different(question, shape, times, states)
        drawn = _different(question, shape, times, noisy)
        train_teacher(question, training, folder, on_report)
        known = list(probable.values()) or [certain]
        others = [one for text, one in drawn.items() if text not in probable]
        if others:
            known += promising(question, known, others, training, folder, on_report)
        for projected in known:
            yield retrained(question, projected, training, folder, on_report)


def _different(
    question: OffloadSearch,
    shape: SupernetShape,
    times: OffloadTimes,
    states: Iterable[SelectorState],
) -> dict[str, ProjectedNetwork]:
    """Networks of selectors within the limits, each once, by their choices as text."""
    found: dict[str, ProjectedNetwork] = {}
    for state in states:
        with contextlib.suppress(NoNetwork):
            one = fitting(question, shape, times, state)
            found.setdefault(documents.as_text(one.choice), one)
    return found


def promising(
    question: OffloadSearch,
    known: list[ProjectedNetwork],
    others: list[ProjectedNetwork],
    training: Training,
    folder: Path,
    on_report: OnReport = lambda _report: None,
) -> list[ProjectedNetwork]:
    """Find the others that no network of both beats in time and accuracy, trained for a short time.

    Known ones are not judged by this: those that learn slowly may be the best in the end.
    """
    us, accuracy = [], []
    recipe = replace(question.recipe, retrain_epochs=question.recipe.trial_epochs)
    every = [*known, *others]
    for one in every:
        task = replace(_task(question, one, folder, TRIAL), recipe=recipe)
        accuracy.append(training.network(task, on_report).accuracies["tune"])
        us.append(question.prices.predict(sliced(question.space, one.choice)).us)
    kept = non_dominated(np.array(us), np.array(accuracy), np.zeros((len(us), 0)))
    return [every[number] for number in kept if number >= len(known)]


def fitting(
    question: OffloadSearch, shape: SupernetShape, times: OffloadTimes, state: SelectorState
) -> ProjectedNetwork:
    """Project selectors on a network whose slices keep the limits.

    A slice with fewer channels may take longer than the full part, because compilers prefer some
    numbers of channels. Then the projection is repeated with a limit that is tighter by the excess.
    This may pass over networks whose slices keep the limit.

    Raises
    ------
    NoNetwork
        If no network is found whose slices keep the limits.
    """
    found, most = project(shape, times, state, question.limits), question.limits.us
    if most is None:
        return found
    limit, least = most, math.inf
    while True:
        us = question.prices.predict(sliced(question.space, found.choice)).us
        if us <= most:
            return found
        least = min(least, us)
        limit = min(limit, found.us) - max(us - most, _LEAST_STEP * most)
        try:
            found = project(shape, times, state, replace(question.limits, us=limit))
        except NoNetwork as error:
            raise NoNetwork(
                f"no network was found whose slices take at most {most / 1e3:.3f} ms: the fastest "
                f"slices that were tried take {least / 1e3:.3f} ms. Allow as much time"
            ) from error


def unbiased(shape: SupernetShape, precisions: tuple[str, ...], links: int = 1) -> SelectorState:
    """Selectors without any preference."""
    offered = [np.array(cell.offered, float) for cell in shape.cells]
    allowed = np.array([float(name in precisions) for name in PRECISIONS])
    return SelectorState(
        phase="unbiased",
        time_weight=0.0,
        operations=tuple(one / one.sum(-1, keepdims=True) for one in offered),
        resources=tuple(np.full(one.shape, 0.5) for one in offered),
        channels={name: np.full(size, 0.5) for name, (size, *_) in shape.sendable()},
        precision=allowed / allowed.sum(),
        position=np.full(len(offered), 1 / len(offered)),
        link=np.full(links, 1 / links),
        expected_us=0.0,
        expected_bytes=0.0,
    )


def retrained(
    question: OffloadSearch,
    projected: ProjectedNetwork,
    training: Training,
    folder: Path,
    on_report: OnReport = lambda _report: None,
) -> OffloadFound:
    """Slice a network, train it from the supernet's weights, and write it."""
    network = sliced(question.space, projected.choice)
    trained = training.network(_task(question, projected, folder, "retrain"), on_report)
    return OffloadFound(
        projected=projected,
        network=network,
        predicted=question.prices.predict(network),
        accuracies=trained.accuracies,
        models=write_parts(network, trained.weights, trained.steps),
    )


def _task(
    question: OffloadSearch, projected: ProjectedNetwork, folder: Path, phase: str
) -> RetrainTask:
    """Task of training a network from the supernet's weights."""
    # The folder belongs to one search, so that the choice alone tells its networks apart. Over
    # another link, a network computes the same.
    trained = replace(projected.choice, link=ANY)
    digest = hashlib.sha256(documents.as_text(trained).encode()).hexdigest()[:16]
    return RetrainTask(
        space=question.space,
        choice=projected.choice,
        checkpoint=str(folder / CHECKPOINT),
        teacher=teacher_in(folder, question),
        recipe=question.recipe,
        result=str(folder / f"{phase}-{digest}.pt"),
        phase=phase,
        seed=question.seed,
        threads=question.threads,
    )


def train_teacher(
    question: OffloadSearch,
    training: Training,
    folder: Path,
    on_report: OnReport = lambda _report: None,
) -> None:
    """Train the network whose answers the found networks learn, unless they learn labels alone."""
    file = teacher_in(folder, question)
    if file is not None:
        task = RetrainTask(
            space=question.space,
            choice=handmade_choice(question.space),
            checkpoint=None,
            recipe=question.recipe,
            result=file,
            phase="teacher",
            seed=question.seed,
            threads=question.threads,
        )
        training.network(task, on_report)


def teacher_in(folder: Path, question: OffloadSearch) -> str | None:
    """File of the teacher of a search; None if there is none."""
    return str(folder / TEACHER) if question.recipe.teacher_weight else None


def sliced(space: Space, choice: OffloadChoice) -> SlicedNetwork:
    """Slice the network of a choice."""
    return slice_network(parts_of(space, choice.architecture), choice)


def supernet_task(question: OffloadSearch, times: OffloadTimes, folder: Path) -> SupernetTask:
    """Task of training the supernet of a search."""
    asked = {
        "space": documents.to_json(question.space),
        "recipe": documents.to_json(question.recipe),
        "limits": documents.to_json(question.limits),
        "precisions": question.precisions,
        "frozen": question.frozen,
        "seed": question.seed,
        "prices": _as_lists(times),
    }
    text = json.dumps(asked, sort_keys=True)
    return SupernetTask(
        space=question.space,
        times=times,
        recipe=question.recipe,
        checkpoint=str(folder / CHECKPOINT),
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        limits=question.limits,
        precisions=question.precisions,
        frozen=question.frozen,
        seed=question.seed,
        threads=question.threads,
    )


def _as_lists(times: OffloadTimes) -> list[Any]:
    return [
        *([one.operations_us.tolist(), one.sums_us.tolist()] for one in times.cells),
        [one.name for one in times.links],
        times.table().tolist(),
    ]
