"""Networks on two devices: a search against a hand-made network, and without single selectors.

``PYTHONPATH=bench python -m search.offload --data mnist5k --seeds 8 --work DIR --json FILE``. The
first device is the modelled one of ``bench/machines/small_board.json``, the second one this
machine; the link is slow. All times are predicted. ``--share 0.55`` searches within 55 % of the
time that the hand-made network's best split takes; on a link as slow as this, that split sends
nothing. Hand-made networks get as many passes over the training data as a search with one
retraining, and all networks learn from the same teacher. ``--parts`` chooses the comparisons; with
``frozen``, a seed takes six more searches. The JSON file has the seeds that ended. A run that was
interrupted goes on after them, and an interrupted search from its folder. By the times of its
trainings, a seed of ``--parts channels,limits`` takes about 25 minutes of one core.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from layoutsel import documents
from layoutsel.benchmarking.compare import save
from layoutsel.cluster.classes import machine_classes
from layoutsel.cluster.links import MessageRoutes
from layoutsel.search.offload.comparisons import placements_of
from layoutsel.search.offload.pricing import OffloadPrices
from layoutsel.search.offload.search import (
    TEACHER,
    OffloadFound,
    OffloadSearch,
    fitting,
    unbiased,
)
from layoutsel.search.offload.settings import (
    SELECTORS,
    OffloadLimits,
    OffloadRecipe,
    check_names,
)
from layoutsel.search.offload.spaces import handmade, offload_space
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.transmitted import PRECISIONS as SIZES
from layoutsel.search.parts import PartSignature
from layoutsel.search.prices import PriceTable, price_parts
from layoutsel.search.two_devices import two_devices
from search.offload_methods import (
    Row,
    accuracies,
    channel_rows,
    handmade_rows,
    limit_rows,
    searched,
    sequential_rows,
)
from tvm_passes.errors import LayoutselError

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


def chosen_of(found: list[OffloadFound], least: float) -> OffloadFound:
    """Quickest network of at least an accuracy on validation data, or the most accurate one."""
    enough = [one for one in found if one.accuracies["tune"] >= least]
    if enough:
        return min(enough, key=lambda one: one.predicted.us)
    return max(found, key=lambda one: one.accuracies["tune"])


def within_share(question: OffloadSearch, share: float | None) -> OffloadSearch:
    """Limit the time to a share of that of the hand-made network's best split.

    Raises
    ------
    LayoutselError
        If no network keeps the limit; before any training.
    """
    if share is None:
        return question
    if share <= 0:
        raise LayoutselError(f"--share {share:g}: expected a number above 0, such as 0.55")
    space = question.space
    *_, best = placements_of(space, handmade(space), question.prices)
    limited = replace(question, limits=OffloadLimits(us=share * best.us))
    shape = SupernetShape.of(space)
    try:
        fitting(limited, shape, question.prices.times(shape), unbiased(shape, question.precisions))
    except LayoutselError as error:
        raise LayoutselError(
            f"--share {share:g} of the {best.us / 1e3:.3f} ms of the hand-made network: {error}"
        ) from error
    return limited


def seed_rows(question: OffloadSearch, work: Path, parts: tuple[str, ...]) -> Iterator[Row]:
    """All rows of a seed."""
    hand = list(handmade_rows(question, work / "search"))
    yield from hand
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
    for part in parts:
        yield from PARTS[part](question, chosen, work)


def frozen_rows(question: OffloadSearch, _chosen: OffloadFound, work: Path) -> Iterator[Row]:
    """Searches in which one kind of selector keeps its first values, or time has no weight."""
    # There is one link, so that its selector has no choice.
    for kind in (one for one in SELECTORS if one != "link"):
        folder = beside(work / kind, work / "search")
        yield from searched(f"frozen {kind}", replace(question, frozen=(kind,)), folder)[0]
    recipe = replace(question.recipe, time_weights=(0.0,))
    free, folder = replace(question, recipe=recipe), beside(work / "free", work / "search")
    yield from searched("no weight of the time", free, folder)[0]


PARTS: Mapping[str, Callable[[OffloadSearch, OffloadFound, Path], Iterator[Row]]] = {
    "channels": lambda question, chosen, work: channel_rows(question, chosen, work / "search"),
    "limits": lambda question, chosen, work: limit_rows(question, chosen, work / "search"),
    "sequential": lambda question, chosen, work: sequential_rows(
        question, chosen, beside(work / "sequential", work / "search")
    ),
    "frozen": frozen_rows,
}
"""Comparisons by name, of a seed's question, its chosen network and its folder."""


def beside(folder: Path, taught: Path) -> Path:
    """Make a folder for a search with the teacher of another one."""
    folder.mkdir(parents=True, exist_ok=True)
    if (taught / TEACHER).exists() and not (folder / TEACHER).exists():
        shutil.copy(taught / TEACHER, folder / TEACHER)
    return folder


def run_seeds(arguments: argparse.Namespace) -> None:
    """Run the seeds that the JSON file lacks, and write it after each.

    Raises
    ------
    LayoutselError
        If an option is out of range.
    """
    parts = tuple(arguments.parts.split(","))
    check_names("--parts", parts, tuple(PARTS))
    link = arguments.link or LINKS[arguments.data]
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = documents.load_json(arguments.json)["rows"] if arguments.json.exists() else []
    done = {tuple(row[key] for key in KEYS) for row in rows}
    for seed in range(arguments.seeds):
        key = (arguments.data, link, arguments.recipe, arguments.share, seed)
        if key in done:
            continue
        start = time.perf_counter()
        asked = OffloadSearch(
            space=offload_space(arguments.data),
            prices=prices_over(link, arguments.work),
            recipe=RECIPES[arguments.recipe],
            precisions=PRECISIONS,
            seed=seed,
            threads=arguments.threads,
        )
        question, found = within_share(asked, arguments.share), []
        for row in seed_rows(question, arguments.work / str(seed), parts):
            found.append({**dict(zip(KEYS, key, strict=True)), **row})
            print(*found[-1].values(), sep="\t", flush=True)
        rows += found
        save(arguments.json, rows)
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist5k", choices=sorted(LINKS))
    parser.add_argument("--link")
    parser.add_argument("--recipe", default="full", choices=sorted(RECIPES))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", default=",".join(PARTS), help="comparisons, with commas")
    parser.add_argument(
        "--share",
        type=float,
        help="limit on the time, relative to the hand-made network's best split",
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", type=Path, required=True)
    try:
        run_seeds(parser.parse_args())
    except LayoutselError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
