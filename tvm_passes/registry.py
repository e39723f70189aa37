"""Registries: tables of one concept each, to which other packages add entries.

An entry is one object in one file, with all properties of a layout, a precision, an operator, an
algorithm or a unit. Importing this does not import TVM.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar

from tvm_passes.errors import LayoutselError


class HasName(Protocol):
    """An object with a name."""

    @property
    def name(self) -> str:
        """Name of the entry, unique in its registry."""


Entry = TypeVar("Entry", bound=HasName)
"""Type of a registry's entries."""


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries of one concept by name: built-in ones in order, then those of other packages by name.

    Entries are loaded at the first access: a registry may be defined where its entries import it.
    """

    def __init__(
        self,
        concept: str,
        own: Callable[[], Iterable[Entry]],
        kind: type = object,
        *,
        part: str = "",
    ) -> None:
        """Define a registry.

        Parameters
        ----------
        concept
            Singular noun for messages, such as ``layout``; the entry-point group is then
            ``layoutsel.layouts``.
        own
            Returns the built-in entries; called once.
        kind
            Class of every entry.
        part
            Attribute of the installed objects that holds the entry; empty if they are the entries.
        """
        self.concept = concept
        self._own = own
        self._kind = kind
        self._part = part
        self._entries: dict[str, Entry] | None = None
        self._origins: dict[str, str] = {}

    @property
    def origins(self) -> Mapping[str, str]:
        """Modules of other packages that define entries, by the entries' names."""
        self._loaded()
        return self._origins

    @property
    def group(self) -> str:
        """Entry-point group of entries from other packages."""
        return _group(self.concept)

    def register(self, entry: Entry) -> None:
        """Add an entry.

        Raises
        ------
        LayoutselError
            If another entry has the name.
        """
        _add(self._loaded(), entry, self.concept)

    @contextmanager
    def including(self, *entries: Entry) -> Iterator[None]:
        """Have further entries within this context.

        Raises
        ------
        LayoutselError
            If a name is taken by another entry.
        """
        before = dict(self._loaded())
        try:
            for entry in entries:
                self.register(entry)
            yield
        finally:
            self._entries = before

    def find(self, name: str) -> Entry:
        """Return the entry with this name.

        Raises
        ------
        LayoutselError
            If there is none; names all entries.
        """
        entry = self._loaded().get(name)
        if entry is None:
            raise LayoutselError(
                f"unknown {self.concept} {name!r}; expected one of {', '.join(self)}"
            )
        return entry

    def __getitem__(self, name: str) -> Entry:
        return self._loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def _loaded(self) -> dict[str, Entry]:
        if self._entries is None:
            entries: dict[str, Entry] = {}
            for entry in self._own():
                _add(entries, entry, self.concept)
            # Other packages may read the built-in entries while they are imported.
            self._entries = entries
            try:
                for module, entry in installed(self.concept, self._kind, self._part):
                    _add(entries, entry, self.concept)
                    self._origins[entry.name] = module
            except BaseException:
                self._entries = None
                raise
        return self._entries


def installed(concept: str, kind: type, part: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of other packages, each with the module that defines it.

    The attribute `part` of an installed object is the entry; the object itself if `part` is empty.

    Raises
    ------
    LayoutselError
        If an entry cannot be imported, or is no object of `kind` with a name.
    """
    group = _group(concept)
    whose = f"an object whose attribute {part!r} is" if part else "an object"
    expected = f"{whose} of class {kind.__name__} with a name"
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        where = f"entry point {point.name!r} ({point.value}) of group {group!r}"
        repair = f"Repair or uninstall the package that has it: {_package(point)}"
        try:
            loaded = point.load()
        except Exception as error:  # Code of other packages may raise anything.
            raise LayoutselError(
                f"{where} cannot be loaded: got {type(error).__name__}: {error}; "
                f"expected {expected}. {repair}"
            ) from error
        entry = getattr(loaded, part, None) if part else loaded
        if not isinstance(entry, kind) or not isinstance(getattr(entry, "name", None), str):
            raise LayoutselError(f"{where}: got {loaded!r:.80}; expected {expected}. {repair}")
        yield point.module, entry


def _group(concept: str) -> str:
    """Return the entry-point group of a concept."""
    return f"layoutsel.{concept}s"


def _package(point: EntryPoint) -> str:
    """Return the name of the package that has an entry point."""
    return point.dist.name if point.dist else "unknown"


def _add(entries: dict[str, Entry], entry: Entry, concept: str) -> None:
    """Add an entry; raises :class:`LayoutselError` if another one has its name."""
    if entries.setdefault(entry.name, entry) is not entry:
        raise LayoutselError(
            f"two {concept}s are called {entry.name!r}; expected unique names: "
            "rename or uninstall one of them"
        )


def entries_in(package: str, attribute: str) -> list[object]:
    """Return `attribute` of each module of `package` that has it, in order of module names."""
    folder = import_module(package).__path__
    modules = [import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folder)]
    return [vars(module)[attribute] for module in modules if attribute in vars(module)]
