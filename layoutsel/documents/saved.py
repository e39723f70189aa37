"""Documents that are a whole file, with checks that their values are consistent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from layoutsel import documents
from layoutsel.documents import DocumentError

if TYPE_CHECKING:
    from typing_extensions import Self

Fault = tuple[str, str, str]
"""Path inside the document, value got, and value expected."""


class SavedDocument:
    """Base of a frozen dataclass that is written to a file, and read from one."""

    VERSIONS: ClassVar[Sequence[int]] = ()
    """Versions of the schema that are read, in ascending order; empty if it has none."""
    ADVICE: ClassVar[str] = ""
    """Advice on a file whose version is no longer supported."""

    def save(self, file: Path | str) -> None:
        """Write the document to `file` atomically.

        Raises
        ------
        WriteError
            If the file cannot be written.
        """
        documents.save(self, file)

    @classmethod
    def load(cls, file: Path | str) -> Self:
        """Read a document that :meth:`save` wrote.

        Raises
        ------
        DocumentError
            If `file` is not a complete and consistent document of a supported version.
        """
        return cls.read(documents.load_json(file), file=str(file))

    @classmethod
    def read(cls, document: Any, *, file: str = "document") -> Self:
        """Read a document from parsed JSON; errors as in :meth:`load`.

        Parameters
        ----------
        document
            Parsed JSON.
        file
            Name of the file, for error messages.
        """
        if cls.VERSIONS:
            documents.check_version(
                document, "schema_version", cls.VERSIONS, renew=cls.ADVICE, file=file
            )
        found = documents.from_json(cls, document, file=file)
        found.check(file=file)
        return found

    def faults(self) -> Iterable[Fault]:
        """Yield the values that are inconsistent with others."""
        return ()

    def check(self, *, file: str = "document") -> None:
        """Reject inconsistent values; raises :class:`DocumentError` at the first one."""
        reject(self.faults(), file)


def reject(faults: Iterable[Fault], file: str) -> None:
    """Raise a :class:`DocumentError` for the first fault, if there is one."""
    for path, got, expected in faults:
        raise DocumentError(file, path, got, expected)


def below(path: str, faults: Iterable[Fault]) -> Iterator[Fault]:
    """Yield faults of the part of a document at `path`."""
    for inner, got, expected in faults:
        yield path + inner[1:], got, expected
