"""Folder of a search: its question, prices, log and the networks that it has found."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from layoutsel import documents
from layoutsel.cluster.engine_times import FREE, EngineTimes
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.core.files import check_output, make_folder, write_text
from layoutsel.documents.saved import Fault, SavedDocument, below
from layoutsel.search.found import FoundNetwork
from layoutsel.search.prices import PriceTable
from layoutsel.search.same_question import check_same
from layoutsel.search.space import Space
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 1
"""Version of files of questions."""
QUESTION, PRICES, LOG, FOUND = "search.json", "prices.json", "log.jsonl", "found.json"
"""Names of files."""
MACHINES = "machines"
"""Name of the folder of machine files."""

Event = Mapping[str, Any]
"""A line of a log: an object with its kind under ``event``."""
T = TypeVar("T")
"""Dataclass of the values of an event."""


@dataclass(frozen=True, kw_only=True)
class SearchQuestion(SavedDocument):
    """All that the result of a search depends on."""

    VERSIONS = (SCHEMA_VERSION,)
    ADVICE = "Search again into another folder"

    schema_version: int = SCHEMA_VERSION
    """Version of the file format."""
    kind: str
    """``joint`` or ``offload``."""
    space: Space
    """Networks to search."""
    topology: Topology
    """Nodes and links; machine files are relative to the folder."""
    statistics: Statistics
    """State of nodes and links."""
    engine: EngineTimes = field(default=FREE, metadata=documents.OPTIONAL)
    """Time of the engine that will run the network; a search that goes on keeps it."""
    seed: int
    """Seed of data, weights and draws."""
    settings: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Numbers by the names of the search's settings, such as ``queries``."""
    choices: Mapping[str, str] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Names by the names of the search's settings, such as ``objective``."""

    def faults(self) -> Iterator[Fault]:
        """Yield the inconsistencies."""
        yield from below("$.space", self.space.faults())
        yield from below("$.topology", self.topology.faults())
        yield from below("$.statistics", self.statistics.faults(self.topology))
        yield from below("$.engine", self.engine.faults())


def routes_of_question(question: SearchQuestion) -> MessageRoutes:
    """Topology of a question in its state, with its routes."""
    return MessageRoutes(question.topology, question.statistics, question.engine)


class RunFolder:
    """Files of one search; :meth:`begin` and :meth:`open` make it.

    Parameters
    ----------
    path
        Folder.
    question
        SearchQuestion of the search.
    """

    def __init__(self, path: Path, question: SearchQuestion) -> None:
        self.path = path
        self.question = question

    @classmethod
    def begin(cls, path: Path, question: SearchQuestion, machines: Path) -> RunFolder:
        """Make a folder for a search, or go on with the same search.

        Parameters
        ----------
        path
            Folder.
        question
            SearchQuestion of the search; machine files of its topology are copied into the folder.
        machines
            Folder that machine files are relative to.

        Raises
        ------
        LayoutselError
            If the folder holds another search, or cannot be written.
        """
        question, files = _with_own_machines(question)
        file = path / QUESTION
        if file.exists():
            held = SearchQuestion.load(file)
            check_same(held, replace(question, engine=held.engine), file)
            return cls(path, held)
        if path.is_dir() and any(path.iterdir()):
            raise LayoutselError(
                f"{path}: got a folder with other files; expected a new folder, or that of a search"
            )
        make_folder(path)
        for name, source in files.items():
            make_folder(path / MACHINES)
            shutil.copyfile(machines / source, path / name)
        check_output(file)
        question.save(file)
        return cls(path, question)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the folder of a search.

        Raises
        ------
        LayoutselError
            If it is none.
        """
        file = path / QUESTION
        if not file.is_file():
            raise LayoutselError(
                f"{path}: got no {QUESTION}; expected the folder of 'layoutsel search joint' or "
                "'layoutsel search offload'"
            )
        return cls(path, SearchQuestion.load(file))

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep other processes from a search in the folder, and repair the log of an earlier one.

        Raises
        ------
        LayoutselError
            If another process searches in the folder.
        """
        with (self.path / QUESTION).open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LayoutselError(
                    f"{self.path}: another process searches in this folder; wait for its end, or "
                    "choose another folder"
                ) from error
            self._repair_log()
            yield

    @property
    def prices(self) -> PriceTable | None:
        """Prices of the space's parts; None before they are known."""
        file = self.path / PRICES
        return PriceTable.load(file) if file.exists() else None

    def keep_prices(self, table: PriceTable) -> None:
        """Write the prices."""
        table.save(self.path / PRICES)

    def log(self, event: str, **values: Any) -> None:
        """Append a line to the log."""
        line = json.dumps({"event": event, **documents.to_json(values)})
        with (self.path / LOG).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def events(self, kind: str | None = None) -> Iterator[Event]:
        """Yield the lines of the log, of one kind if asked for.

        A last line that an interrupted search left unfinished is left out.

        Raises
        ------
        LayoutselError
            If another line is no event.
        """
        return (read for _, read in self._lines(kind))

    def logged(self, kind: str, type_: type[T]) -> Iterator[T]:
        """Yield the values of all events of a kind; errors as :meth:`events`.

        Parameters
        ----------
        kind
            Kind of the events.
        type_
            Dataclass of their values.
        """
        for place, read in self._lines(kind):
            values = {name: value for name, value in read.items() if name != "event"}
            yield documents.from_json(type_, values, file=place)

    def _lines(self, kind: str | None) -> Iterator[tuple[str, Event]]:
        """Yield events with their places in the log."""
        lines = self._log_text().split("\n")
        for number, line in enumerate(lines[:-1], start=1):
            place = f"{self.path / LOG}, line {number}"
            read = documents.parse_json(line, place)
            if not isinstance(read, dict) or "event" not in read:
                raise documents.DocumentError(place, "$", line[:40], "an object with an event")
            if kind in (None, read["event"]):
                yield place, read

    def _log_text(self) -> str:
        file = self.path / LOG
        return documents.read_text(file) if file.exists() else ""

    def _repair_log(self) -> None:
        """Cut off a last line that an interrupted search left unfinished."""
        text = self._log_text()
        if text and not text.endswith("\n"):
            write_text(self.path / LOG, text[: text.rfind("\n") + 1])

    def folder_of(self, number: int) -> Path:
        """Folder of a found network."""
        return self.path / str(number)

    def keep(self, found: FoundNetwork) -> Path:
        """Write the document of a found network; returns its folder."""
        folder = self.folder_of(found.number)
        make_folder(folder)
        found.save(folder / FOUND)
        return folder

    def found(self) -> list[FoundNetwork]:
        """Networks that the search has found, in order."""
        numbers = sorted(
            int(one.name) for one in self.path.iterdir() if one.name.isdigit() and one.is_dir()
        )
        return [
            FoundNetwork.load(self.folder_of(number) / FOUND)
            for number in numbers
            if (self.folder_of(number) / FOUND).exists()
        ]


def network_in(path: Path) -> tuple[RunFolder, FoundNetwork]:
    """Open a found network by its folder, such as ``run/3``.

    Raises
    ------
    LayoutselError
        If it is none; names those that there are.
    """
    folder = path.resolve()
    if not (folder / FOUND).is_file():
        run = RunFolder.open(folder if (folder / QUESTION).is_file() else folder.parent)
        known = [f"{run.path / str(one.number)}" for one in run.found()]
        raise LayoutselError(
            f"{path}: got no found network; expected one of {', '.join(known) or 'none so far'}"
        )
    return RunFolder.open(folder.parent), FoundNetwork.load(folder / FOUND)


def _with_own_machines(question: SearchQuestion) -> tuple[SearchQuestion, dict[str, str]]:
    """Copy with machine files within the folder, and their sources by new name."""
    files: dict[str, str] = {}
    nodes = []
    for node in question.topology.nodes:
        if node.machine:
            name = f"{MACHINES}/{Path(node.machine).name}"
            if files.setdefault(name, node.machine) != node.machine:
                raise LayoutselError(
                    f"machine files {files[name]} and {node.machine}: got one name for two files; "
                    "expected different names"
                )
            nodes.append(replace(node, machine=name))
        else:
            nodes.append(node)
    return replace(question, topology=replace(question.topology, nodes=tuple(nodes))), files
