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

from layoutsel import documents
from layoutsel.benchmarking.compare import save
from layoutsel.cluster.classes import machine_classes
from layoutsel.cluster.links import MessageRoutes
from layoutsel.search.offload.pricing import OffloadPrices
from layoutsel.search.offload.search import (
    TEACHER,
    OffloadFound,
    OffloadSearch,
)
from layoutsel.search.offload.settings import (
    SELECTORS,
    OffloadLimits,
    OffloadRecipe,
)
from layoutsel.search.offload.spaces import offload_space
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
