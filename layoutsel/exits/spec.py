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
from layoutsel.documents.saved import Fault, SavedDocument
from layoutsel.exits.policy import Policy, PolicyError
from layoutsel.exits.scores import SCORES

FORMAT = "layoutsel.exits/1"
"""Format of specifications."""
METADATA_KEY = "layoutsel.exits"
"""Key of the specification in ``metadata_props`` of an ONNX model."""


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
class ExitSpec(SavedDocument):
    """Exits of a network in the order of their depth; the last one is final."""

    format: str
    """:data:`FORMAT`."""
    model_hash: str
    """Hash of the model; empty if the specification holds for any model with these outputs."""
    exits: tuple[Exit, ...]
    """Exits, the final one last."""
    policy: Policy | None = field(default=None, metadata=documents.OPTIONAL)
    """Policy that the exits were calibrated for."""

    def faults(self) -> Iterator[Fault]:
        """Yield the inconsistencies of the specification."""
        if self.format != FORMAT:
            yield "$.format", repr(self.format), repr(FORMAT)
        if len(self.exits) < 2:
            yield "$.exits", f"{len(self.exits)} exits", "two or more, the final one last"
        for position, exit_ in enumerate(self.exits):
            if not (exit_.name.isidentifier() and exit_.name.isascii()):
                yield f"$.exits[{position}].name", repr(exit_.name), "letters, digits and '_'"
        for name in ("name", "output"):
            values = [getattr(exit_, name) for exit_ in self.exits]
            for position, value in enumerate(values):
                if value in values[:position]:
                    path = f"$.exits[{position}].{name}"
                    yield path, f"{value!r} a second time", f"another {name} for each exit"
        if self.policy is not None:
            exits, got = len(self.exits), len(self.policy.thresholds)
            if got != exits:
                yield "$.policy.thresholds", f"{got} thresholds", f"one for each of {exits} exits"
            if self.policy.score not in SCORES:
                yield "$.policy.score", repr(self.policy.score), f"one of {', '.join(SCORES)}"

    def save(self, file: Path | str) -> None:
        """Write the specification to `file` atomically, if it is consistent."""
        self.check(file="specification")
        super().save(file)

    def embed(self, model: ModelProto) -> None:
        """Write the specification into the metadata of `model`, in place of an earlier one."""
        self.check(file="specification")
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
        return cls.read(documents.parse_json(texts[0], file), file=file)

    @classmethod
    def read(cls, document: Any, *, file: str = "document") -> ExitSpec:
        """Read a specification from JSON.

        Raises
        ------
        DocumentError, PolicyError
            If the JSON is not a consistent specification.
        """
        # A file of another format misses fields; its format is the clearer message.
        found = document.get("format") if isinstance(document, dict) else None
        if isinstance(found, str) and found != FORMAT:
            raise DocumentError(file, "$.format", json.dumps(found), json.dumps(FORMAT))
        try:
            return super().read(document, file=file)
        except PolicyError as error:
            raise PolicyError(f"{file}: at $.policy: {error}") from None
