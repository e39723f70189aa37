"""Search for two devices in a folder: its question, log and found networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import numpy as np

from layoutsel.cluster.engine_probing import engine_between
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.core.files import make_folder, replacing
from layoutsel.search.found import NETWORK, FoundMessage, FoundNetwork
from layoutsel.search.link_choice import ANY
from layoutsel.search.offload.comparisons import placements_of
from layoutsel.search.offload.pricing import OffloadPrices
from layoutsel.search.offload.search import OffloadFound, OffloadSearch, search
from layoutsel.search.offload.settings import (
    OffloadLimits,
    OffloadRecipe,
    SearchReport,
    check_names,
)
from layoutsel.search.offload.training import OnReport
from layoutsel.search.offload.transmitted import FLOAT32, PRECISIONS
from layoutsel.search.parts import parts_of
from layoutsel.search.pricing import pricing_of
from layoutsel.search.run_folder import RunFolder, SearchQuestion, routes_of_question
from layoutsel.search.space import Space

OFFLOAD = "offload"
"""Kind of the search."""
FIRST, SECOND = "first.onnx", "second.onnx"
"""Files of the parts of both devices."""
_OPEN = 0.5
"""Probability from which a channel counts as sent, in the log."""

Say = Callable[[str], None]
"""Function that shows a line of text."""


def offload_question(  # noqa: PLR0913 - the settings of a search, most of them with defaults
    space: Space,
    topology: Topology,
    statistics: Statistics,
    *,
    limits: OffloadLimits,
    recipe: OffloadRecipe,
    precisions: tuple[str, ...] = (FLOAT32,),
    seed: int = 0,
    cost: str = "learned",
    engine: str | None = None,
) -> SearchQuestion:
    """Write the options of a search for two devices as its question.

    The engine that will run the networks is as for :func:`engine_between`.

    Raises
    ------
    LayoutselError
        If an option is out of range.
    """
    check_names("precision", precisions, tuple(PRECISIONS))
    numbers = {
        f"{name}_limit": float(most)
        for name, most in (("us", limits.us), ("bytes", limits.bytes))
        if most is not None
    }
    held = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    numbers |= {name: float(v) for name, v in held.items() if isinstance(v, int | float)}
    weights = ",".join(f"{weight:g}" for weight in recipe.time_weights)
    return SearchQuestion(
        kind=OFFLOAD,
        space=space,
        topology=topology,
        statistics=statistics,
        engine=engine_between(topology, engine),
        seed=seed,
        settings=numbers,
        choices={"cost": cost, "precisions": ",".join(precisions), "time_weights": weights},
    )


def search_offload(
    run: RunFolder,
    say: Say,
    *,
    limits: OffloadLimits,
    recipe: OffloadRecipe,
    precisions: tuple[str, ...] = (FLOAT32,),
    on_report: OnReport = lambda _report: None,
    threads: int = 1,
    limit_s: float = 3600.0,
) -> list[FoundNetwork]:
    """Search networks for two devices, from where an earlier search in the folder ended.

    Parameters
    ----------
    run
        Folder of the search, with the question of :func:`offload_question`.
    say
        Function that shows a line of text.
    limits, recipe, precisions
        Options of the question.
    on_report
        Receives a report about each pass over the training data.
    threads
        Number of threads of the training.
    limit_s
        Time limit of all trainings, seconds.

    Returns
    -------
    list of FoundNetwork
        Networks that no other one dominates, in ascending order of their time.

    Raises
    ------
    LayoutselError
        If no network keeps the limits, PyTorch is missing, a training fails, or another process
        searches in the folder.
    """
    asked = run.question
    with run.reserved():
        prices = OffloadPrices(routes_of_question(asked), pricing_of(run), run.prices)
        question = OffloadSearch(
            space=asked.space,
            prices=prices,
            limits=limits,
            recipe=recipe,
            precisions=precisions,
            seed=asked.seed,
            threads=threads,
            limit_s=limit_s,
        )
        logged = sum(1 for _ in run.events("pass"))
        seen = 0

        def report(made: SearchReport) -> None:
            nonlocal seen
            seen += 1
            if seen > logged:  # a search that goes on repeats the reports of the one before it
                _log(run, made, seen)
            on_report(made)

        say(f"training a network of {asked.space.size:.3g} networks, and its selectors")
        found = []
        for one in search(question, run.path, report):
            found.append(one)
            say(
                f"found a network of {one.predicted.us / 1e3:.3f} ms that sends "
                f"{sum(one.predicted.bytes.values())} bytes{_over(one.network.link)}, "
                f"{100 * one.accuracies['tune']:.1f} % right"
            )
        kept = _front(found)
        _say_alternatives(asked.space, kept[0], prices, say)
        return [_kept(run, number, one, prices) for number, one in enumerate(kept)]


def _say_alternatives(
    space: Space, quickest: OffloadFound, prices: OffloadPrices, say: Say
) -> None:
    """Tell what the quickest network would take on one of the devices alone, all channels."""
    architecture = quickest.projected.choice.architecture
    placed = {one.name: one.us for one in placements_of(space, architecture, prices)}
    alone = dict(zip(prices.nodes, (placed["first device"], placed["second device"]), strict=True))
    us = quickest.predicted.us
    say(
        f"the quickest one, of {us / 1e3:.3f} ms, would take "
        + " and ".join(f"{one / 1e3:.3f} ms on {node} alone" for node, one in alone.items())
    )
    best = min(alone, key=lambda node: alone[node])
    if alone[best] < us:
        say(f"to divide it does not pay over this link: {best} alone is faster")


def _over(link: str) -> str:
    """The link in a sentence, if there is a choice."""
    return f" over {link}" if link != ANY else ""


def _log(run: RunFolder, made: SearchReport, number: int) -> None:
    run.log("pass", report=replace(made, gates={}))
    if made.gates:
        opened = {
            tensor: int(np.sum(np.array(gates) > _OPEN)) for tensor, gates in made.gates.items()
        }
        run.log("gates", epoch=number, open=opened)


def _front(found: list[OffloadFound]) -> list[OffloadFound]:
    """Networks in ascending order of time, each more accurate on validation data than before."""
    kept: list[OffloadFound] = []
    for one in sorted(found, key=lambda one: (one.predicted.us, -one.accuracies["tune"])):
        if not kept or one.accuracies["tune"] > kept[-1].accuracies["tune"]:
            kept.append(one)
    return kept


def _kept(run: RunFolder, number: int, one: OffloadFound, prices: OffloadPrices) -> FoundNetwork:
    """Write a found network into the folder."""
    choice, nodes = one.projected.choice, prices.nodes
    folder = run.folder_of(number)
    make_folder(folder)
    files = {"whole": NETWORK, "first": FIRST, "second": SECOND}
    for name, file in files.items():
        with replacing(folder / file) as stream:
            stream.write(one.models[name].SerializeToString())
    found = FoundNetwork(
        number=number,
        architecture=choice.architecture,
        placement={part.name: nodes[part.device] for part in one.network.parts},
        sent=tuple(_sent(run, one, nodes)),
        predicted_us=one.predicted.us,
        spread_us=one.predicted.spread_us,
        accuracies=dict(one.accuracies),
        parts={nodes[0]: FIRST, nodes[1]: SECOND},
        precision=choice.precision,
        link=choice.link,
    )
    run.keep(found)
    return found


def _sent(run: RunFolder, one: OffloadFound, nodes: tuple[str, str]) -> Iterator[FoundMessage]:
    """Yield the tensors that are sent to the second device, and the answer."""
    full = parts_of(run.question.space, one.projected.choice.architecture)
    for tensor, size in one.predicted.bytes.items():
        yield FoundMessage(
            tensor=tensor,
            source=nodes[0],
            destination=nodes[1],
            bytes=size,
            channels=len(one.network.sent[tensor]),
            all_channels=full.shape(tensor)[0],
        )
    last = one.network.parts[-1]
    if last.device == 1:
        classes = run.question.space.classes
        yield FoundMessage(
            tensor=last.name,
            source=nodes[1],
            destination=nodes[0],
            bytes=4 * classes,
            channels=classes,
            all_channels=classes,
        )
