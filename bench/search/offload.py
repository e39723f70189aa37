"""Networks on two devices: a search against a hand-made network, and without single selectors.

``PYTHONPATH=bench python -m search.offload --data mnist5k --seeds 8 --work DIR --json FILE``. The
first device is the modelled one of ``bench/machines/small_board.json``, the second one this
machine; the link is slow. All times are predicted. ``--share 0.55`` searches within 55 % of the
time that the hand-made network's best split takes; on a link as slow as this, that split sends
nothing. Hand-made networks get as many passes over the training data as a search with one
retraining, and all networks learn from the same teacher. ``--parts`` chooses the comparisons; with
``frozen``, a seed takes six more searches. A run that was interrupted goes on from its JSON file,
and an interrupted search from its folder. By the times of its trainings, a seed of ``--parts
channels,limits`` takes about 25 minutes of one core.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.benchmarking.compare import save
from layoutsel.cluster.classes import machine_classes
from layoutsel.cluster.links import MessageRoutes
from layoutsel.exits.training.data import load
from layoutsel.search.front import NoNetwork
from layoutsel.search.offload.comparisons import (
    INPUT_LEVELS,
    compressed_input,
    placements_of,
    with_random_channels,
)
from layoutsel.search.offload.pricing import OffloadPrices
from layoutsel.search.offload.projection import project
from layoutsel.search.offload.search import (
    CHECKPOINT,
    TEACHER,
    OffloadFound,
    OffloadSearch,
    search,
    sliced,
    supernet_task,
    teacher_in,
    train_teacher,
)
from layoutsel.search.offload.settings import (
    SELECTORS,
    OffloadLimits,
    OffloadRecipe,
    RetrainedNetwork,
    RetrainTask,
)
from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.spaces import handmade, handmade_choice, offload_space
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.offload.training import Training
from layoutsel.search.offload.transmitted import PRECISIONS as SIZES
from layoutsel.search.parts import PartSignature, parts_of
from layoutsel.search.prices import PriceTable, price_parts
from layoutsel.search.space import Space
from layoutsel.search.two_devices import two_devices

DEVICE = Path(__file__).parents[1] / "machines/small_board.json"
LINKS = {"mnist1d": "50kbit/s,5ms", "mnist5k": "100kbit/s,5ms"}
PRECISIONS = tuple(SIZES)
RECIPES = {
    "full": OffloadRecipe(),
    "short": OffloadRecipe(
        warm_epochs=5,
        search_epochs=6,
        sweep_epochs=3,
        drawn_networks=1,
        trial_epochs=3,
        retrain_epochs=12,
        time_weights=(0.01, 0.1, 0.5),
    ),
    "least": OffloadRecipe(
        warm_epochs=1,
        search_epochs=1,
        sweep_epochs=1,
        drawn_networks=1,
        trial_epochs=1,
        retrain_epochs=1,
        time_weights=(0.01, 0.5),
    ),
}
"""Settings by name; the least ones only show that every part runs."""
KEYS = ("data", "link", "recipe", "share", "seed")
"""Fields of a row that tell runs apart."""
EQUAL = 0.005
"""Drop of accuracy on validation data that counts as equal."""

Row = dict[str, Any]


def prices_over(link: str, work: Path) -> OffloadPrices:
    """Prices over a link; those of parts are kept in the folder."""
    topology, statistics = two_devices(link, device=DEVICE)
    classes = machine_classes(topology, Path())
    file = work / "prices.json"

    def pricing(missing: Iterable[PartSignature]) -> PriceTable:
        table = price_parts(missing, classes)
        known = PriceTable.load(file).merged(table) if file.exists() else table
        known.save(file)
        return table

    known = PriceTable.load(file) if file.exists() else None
    return OffloadPrices(MessageRoutes(topology, statistics), pricing, known)


def searched(
    method: str, question: OffloadSearch, folder: Path
) -> tuple[list[Row], list[OffloadFound]]:
    """Rows of a search."""
    folder.mkdir(parents=True, exist_ok=True)
    passes: list[float] = []
    found = list(search(question, folder, lambda report: passes.append(report.cpu_s)))
    rows = [
        {
            "method": method,
            "seed": question.seed,
            **accuracies(one.accuracies),
            "us": one.predicted.us,
            "bytes": sum(one.predicted.bytes.values()),
            "precision": one.projected.choice.precision,
            "first": sum(part.device == FIRST for part in one.network.parts),
            "parts": len(one.network.parts),
            "gap": one.projected.bound - one.projected.score,
            "cpu_s": sum(passes),
        }
        for one in found
    ]
    return rows, found


def accuracies(found: Any) -> Row:
    return {"tune": found["tune"], "test": found["test"]}


def budget(recipe: OffloadRecipe) -> OffloadRecipe:
    """As many passes for one network as a search takes for one."""
    passes = recipe.warm_epochs + recipe.retrain_epochs
    passes += 2 * sum(epochs for name, epochs, _ in recipe.phases if name != "warm")
    return replace(recipe, retrain_epochs=passes)


def trained(
    question: OffloadSearch, choice: OffloadChoice, folder: Path, name: str, **changes: Any
) -> RetrainedNetwork:
    """Train one network as the search in a folder trains those that it finds, and keep it there."""
    task = RetrainTask(
        space=question.space,
        choice=choice,
        checkpoint=None,
        teacher=teacher_in(folder, question),
        recipe=question.recipe,
        result=str(folder / f"{name}.pt"),
        seed=question.seed,
        threads=question.threads,
    )
    with Training(question.threads, question.limit_s) as training:
        return training.network(replace(task, **changes), lambda _report: None)


def handmade_rows(question: OffloadSearch, folder: Path) -> Iterator[Row]:
    """The hand-made network in its placements, and with inputs of one byte a point.

    It learns the answers of the search's teacher as well, a network of its own kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Training(question.threads, question.limit_s) as training:
        train_teacher(question, training, folder)
    space, prices = question.space, question.prices
    architecture = handmade(space)
    data = load(space.data, question.seed)
    placed = [
        *placements_of(space, architecture, prices),
        compressed_input(space, architecture, prices, data.tune),
    ]
    recipe = budget(question.recipe)
    rounding = None if is_levelled(data.train.inputs) else INPUT_LEVELS
    found = {
        levels: trained(
            question,
            handmade_choice(space),
            folder,
            f"handmade-{levels}",
            recipe=recipe,
            input_levels=levels,
        )
        for levels in (None, rounding)
    }
    for one in placed:
        levels = rounding if one.name == "compressed input" else None
        yield {
            "method": f"hand-made, {one.name}",
            "seed": question.seed,
            **accuracies(found[levels].accuracies),
            "us": one.us,
            "bytes": one.bytes,
            "first": sum(device == FIRST for device in one.devices.values()),
            "parts": len(one.devices),
        }


def is_levelled(inputs: np.ndarray) -> bool:
    """True if inputs have the values of bytes already, as images have."""
    low, high = inputs.min(), inputs.max()
    scaled = (inputs - low) / (high - low) * (INPUT_LEVELS - 1)
    return bool(np.abs(scaled - np.round(scaled)).max() < 1e-3)


def channel_rows(question: OffloadSearch, chosen: OffloadFound, folder: Path) -> Iterator[Row]:
    """The chosen network with as many random channels, and with those of the largest weights."""
    choice, state = chosen.projected.choice, str(folder / CHECKPOINT)
    sent = {name: len(ones) for name, ones in chosen.network.sent.items()}
    variants = {
        "random channels": trained(
            question,
            with_random_channels(choice, question.space, question.seed),
            folder,
            "random-channels",
            checkpoint=state,
        ),
        "channels by magnitude": trained(
            question, choice, folder, "magnitudes", checkpoint=state, by_magnitude=True
        ),
    }
    for name, made in variants.items():
        network = sliced(question.space, made.choice)
        assert {name: len(ones) for name, ones in network.sent.items()} == sent
        predicted = question.prices.predict(network)
        yield {
            "method": name,
            "seed": question.seed,
            **accuracies(made.accuracies),
            "us": predicted.us,
            "bytes": sum(predicted.bytes.values()),
        }


def sequential_rows(question: OffloadSearch, chosen: OffloadFound, folder: Path) -> Iterator[Row]:
    """Operation selectors alone, then the best split that sends no more, channels by magnitude."""
    asked = replace(
        question,
        frozen=("resources", "channels", "position", "precision"),
        recipe=replace(question.recipe, time_weights=(0.0,)),
        precisions=("float32",),
    )
    shape = SupernetShape.of(question.space)
    times = question.prices.times(shape)
    task = supernet_task(asked, times, folder)
    with Training(question.threads, question.limit_s) as training:
        *_, state = training.supernet(task, lambda _report: None)
    architecture = project(shape, times, state, OffloadLimits()).choice.architecture
    choice = chosen.projected.choice
    most = sum(chosen.predicted.bytes.values())
    options = list(splits_within(question.space, architecture, choice.precision, most))
    if not options:
        return
    best = min(options, key=lambda one: question.prices.predict(sliced(question.space, one)).us)
    made = trained(
        question,
        best,
        folder,
        "magnitudes",
        checkpoint=str(folder / CHECKPOINT),
        by_magnitude=True,
    )
    predicted = question.prices.predict(sliced(question.space, made.choice))
    yield {
        "method": "architecture, then split, then channels",
        "seed": question.seed,
        **accuracies(made.accuracies),
        "us": predicted.us,
        "bytes": sum(predicted.bytes.values()),
    }


def splits_within(
    space: Space, architecture: Any, precision: str, most_bytes: float
) -> Iterator[OffloadChoice]:
    """Splits that send one tensor, with as many channels as the bytes allow."""
    graph = parts_of(space, architecture)
    names = [part.name for part in graph.parts]
    for cut in range(1, len(names)):
        first = set(names[:cut])
        sent = {t for part in graph.parts[cut:] for t in part.inputs if t in first}
        if len(sent) == 1:
            (tensor,) = sent
            channels, *axes = graph.shape(tensor)
            count = min(channels, int(most_bytes // (SIZES[precision] * np.prod(axes))))
            if count:
                devices = {name: FIRST if name in first else SECOND for name in names}
                kept = {tensor: tuple(range(count))}
                yield OffloadChoice(
                    architecture=architecture, devices=devices, kept=kept, precision=precision
                )


def limit_rows(question: OffloadSearch, chosen: OffloadFound, folder: Path) -> Iterator[Row]:
    """Limits that are kept by the projection, and broken by the most probable decisions."""
    shape = SupernetShape.of(question.space)
    times = question.prices.times(shape)
    with Training(question.threads, question.limit_s) as training:
        states = list(training.supernet(supernet_task(question, times, folder), lambda _r: None))
    for share in (0.5, 0.7, 0.9):
        limit = OffloadLimits(us=share * chosen.predicted.us)
        for state in states:
            argmax = project(shape, times, state, OffloadLimits())
            row = {"method": "limit", "seed": question.seed, "limit_us": limit.us}
            row["argmax_us"] = question.prices.predict(sliced(question.space, argmax.choice)).us
            try:
                found = project(shape, times, state, limit)
            except NoNetwork:
                yield {**row, "projected_us": None}
                continue
            yield {
                **row,
                "projected_us": question.prices.predict(sliced(question.space, found.choice)).us,
            }


def chosen_of(found: list[OffloadFound], least: float) -> OffloadFound:
    """Quickest network of at least an accuracy on validation data, or the most accurate one."""
    enough = [one for one in found if one.accuracies["tune"] >= least]
    if enough:
        return min(enough, key=lambda one: one.predicted.us)
    return max(found, key=lambda one: one.accuracies["tune"])


def seed_rows(
    question: OffloadSearch, work: Path, parts: set[str], share: float | None
) -> Iterator[Row]:
    """All rows of a seed."""
    hand = list(handmade_rows(question, work / "search"))
    yield from hand
    if share is not None:
        best = min(row["us"] for row in hand if row["method"] == "hand-made, best split")
        question = replace(question, limits=OffloadLimits(us=share * best))
    rows, found = searched("search", question, work / "search")
    yield from rows
    chosen = chosen_of(found, hand[0]["tune"] - EQUAL)
    yield {
        "method": "chosen",
        "seed": question.seed,
        **accuracies(chosen.accuracies),
        "us": chosen.predicted.us,
        "bytes": sum(chosen.predicted.bytes.values()),
    }
    if "channels" in parts:
        yield from channel_rows(question, chosen, work / "search")
    if "limits" in parts:
        yield from limit_rows(question, chosen, work / "search")
    if "sequential" in parts:
        yield from sequential_rows(question, chosen, beside(work / "sequential", work / "search"))
    if "frozen" in parts:
        for kind in SELECTORS:
            folder = beside(work / kind, work / "search")
            yield from searched(f"frozen {kind}", replace(question, frozen=(kind,)), folder)[0]
        recipe = replace(question.recipe, time_weights=(0.0,))
        free, folder = replace(question, recipe=recipe), beside(work / "free", work / "search")
        yield from searched("no weight of the time", free, folder)[0]


def beside(folder: Path, taught: Path) -> Path:
    """Make a folder for a search with the teacher of another one."""
    folder.mkdir(parents=True, exist_ok=True)
    if (taught / TEACHER).exists() and not (folder / TEACHER).exists():
        shutil.copy(taught / TEACHER, folder / TEACHER)
    return folder


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist5k", choices=sorted(LINKS))
    parser.add_argument("--link")
    parser.add_argument("--recipe", default="full", choices=sorted(RECIPES))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", default="channels,limits,sequential,frozen")
    parser.add_argument(
        "--share",
        type=float,
        help="limit on the time, relative to the hand-made network's best split",
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    link = arguments.link or LINKS[arguments.data]
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = documents.load_json(arguments.json)["rows"] if arguments.json.exists() else []
    done = {tuple(row[key] for key in KEYS) for row in rows}
    for seed in range(arguments.seeds):
        key = (arguments.data, link, arguments.recipe, arguments.share, seed)
        if key in done:
            continue
        start = time.perf_counter()
        question = OffloadSearch(
            space=offload_space(arguments.data),
            prices=prices_over(link, arguments.work),
            recipe=RECIPES[arguments.recipe],
            precisions=PRECISIONS,
            seed=seed,
            threads=arguments.threads,
        )
        found = []
        parts, work = set(arguments.parts.split(",")), arguments.work / str(seed)
        for row in seed_rows(question, work, parts, arguments.share):
            found.append({**dict(zip(KEYS, key, strict=True)), **row})
            print(*found[-1].values(), sep="\t", flush=True)
        rows += found
        save(arguments.json, rows)
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
