"""Specification of a network's exits, as a file or in the metadata of an ONNX model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx import ModelProto

from layoutsel import documents
from layoutsel.documents import DocumentError
from layoutsel.exits.policy import Policy, PolicyError
from layoutsel.exits.scores import SCORES

FORMAT = "layoutsel.exits/1"
"""Format of specifications."""
METADATA_KEY = "layoutsel.exits"
"""Key of the specification in ``metadata_props`` of an ONNX model."""

Fault = tuple[str, str, str]
"""Path inside the document, value got, and value expected."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """One exit of a network."""

    name: str
    """Name, unique in the network: letters, digits and ``_``."""
    output: str
    """Name of the model's output with the logits or probabilities of the classes, (1, classes)."""
    is_probability: bool | None = field(default=None, metadata=documents.OPTIONAL)
    """True for probabilities, False for logits; None to recognise a final softmax."""


@dataclass(frozen=True, kw_only=True)
class ExitSpec:
    """Exits of a network in the order of their depth; the last one is final."""

    format: str
    """:data:`FORMAT`."""
    model_hash: str
    """Hash of the model; empty if the specification holds for any model with these outputs."""
    exits: tuple[Exit, ...]
    """Exits, the final one last."""
    policy: Policy | None = field(default=None, metadata=documents.OPTIONAL)
    """Policy that the exits were calibrated for."""

    def check(self, *, file: str = "specification") -> None:
        """Reject an inconsistent specification.

        Parameters
        ----------
        file
            Name of its file, for error messages.

        Raises
        ------
        DocumentError
            At the first inconsistent value.
        """
        for path, got, expected in _faults(self):
            raise DocumentError(file, path, got, expected)

    def save(self, file: Path | str) -> None:
        """Write the specification to `file` atomically."""
        self.check()
        documents.save(self, file)

    @classmethod
    def load(cls, file: Path | str) -> ExitSpec:
        """Read a specification that :meth:`save` wrote.

        Raises
        ------
        DocumentError, PolicyError
            If `file` is not a consistent specification.
        """
        return cls._read(documents.load_json(file), str(file))

    def embed(self, model: ModelProto) -> None:
        """Write the specification into the metadata of `model`, in place of an earlier one."""
        self.check()
        others = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
        kept = [(entry.key, entry.value) for entry in others]
        del model.metadata_props[:]
        for key, value in (*kept, (METADATA_KEY, documents.as_text(self))):
            model.metadata_props.add(key=key, value=value)

    @classmethod
    def embedded(cls, model: ModelProto, where: str) -> ExitSpec | None:
        """Read the specification in the metadata of `model`; None without one.

        Parameters
        ----------
        model
            Model whose metadata is read.
        where
            Name of the model, for error messages.

        Raises
        ------
        DocumentError, PolicyError
            If the metadata is not a consistent specification.
        """
        texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
        if not texts:
            return None
        file = f"{where} (metadata {METADATA_KEY!r})"
        if len(texts) > 1:
            raise DocumentError(file, "$", f"{len(texts)} specifications", "one")
        return cls._read(documents.parse_json(texts[0], file), file)

    @classmethod
    def _read(cls, document: Any, file: str) -> ExitSpec:
        # A file of another format misses fields; its format is the clearer message.
        found = document.get("format") if isinstance(document, dict) else None
        if isinstance(found, str) and found != FORMAT:
            raise DocumentError(file, "$.format", json.dumps(found), json.dumps(FORMAT))
        try:
            spec = documents.from_json(cls, document, file=file)
        except PolicyError as error:
            raise PolicyError(f"{file}: at $.policy: {error}") from None
        spec.check(file=file)
        return spec


def _faults(spec: ExitSpec) -> Iterator[Fault]:
    if spec.format != FORMAT:
        yield "$.format", repr(spec.format), repr(FORMAT)
    if len(spec.exits) < 2:
        yield "$.exits", f"{len(spec.exits)} exits", "two or more, the final one last"
    for position, exit_ in enumerate(spec.exits):
        if not (exit_.name.isidentifier() and exit_.name.isascii()):
            yield f"$.exits[{position}].name", repr(exit_.name), "letters, digits and '_'"
    for name in ("name", "output"):
        values = [getattr(exit_, name) for exit_ in spec.exits]
        for position, value in enumerate(values):
            if value in values[:position]:
                path = f"$.exits[{position}].{name}"
                yield path, f"{value!r} a second time", f"another {name} for each exit"
    if spec.policy is not None:
        expected, got = len(spec.exits), len(spec.policy.thresholds)
        if got != expected:
            yield "$.policy.thresholds", f"{got} thresholds", f"one for each of {expected} exits"
        if spec.policy.score not in SCORES:
            yield "$.policy.score", repr(spec.policy.score), f"one of {', '.join(SCORES)}"
