"""Observations of a multi-exit network on data: the score and prediction of every exit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.core.file_versions import expected_version
from layoutsel.core.files import replacing
from layoutsel.documents.arrays import ArraysError, read_arrays
from tvm_passes.errors import LayoutselError

FORMAT = "layoutsel.exit-matrix"
"""Name of the format of files with observations."""
VERSION = 1
"""Version of the format."""
MOST_BYTES = 1 << 30
"""Largest size of the arrays of a file, bytes."""


class MatrixError(LayoutselError):
    """Observations that are unreadable, inconsistent, or do not fit a policy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExitMatrix:
    """Scores and predictions of N samples at E exits, the final one last.

    Raises
    ------
    MatrixError
        If an array has another shape or type, or values that are out of range.
    """

    exits: tuple[str, ...]
    """Names of the exits."""
    score: str
    """Entry of :data:`layoutsel.exits.scores.SCORES`."""
    scores: np.ndarray
    """Scores, (N, E), float64 within [0, 1]; NaN counts as unsure."""
    predictions: np.ndarray
    """Predicted classes, (N, E), int64."""
    labels: np.ndarray | None = None
    """True classes, (N,), int64; None if unknown."""
    model_hash: str = ""
    """Hash of the network; empty if unknown."""

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise MatrixError(f"observations of exits: {fault}")

    @property
    def samples(self) -> int:
        """Number N of samples."""
        return len(self.scores)

    @property
    def truth(self) -> np.ndarray:
        """True classes, (N,); the final exit's predictions where labels are unknown."""
        return self.predictions[:, -1] if self.labels is None else self.labels

    @property
    def misleading(self) -> np.ndarray:
        """True where the final exit is right and an earlier exit is wrong, (N, E - 1)."""
        truth = self.truth[:, None]
        wrong: np.ndarray = self.predictions[:, :-1] != truth
        return wrong & (self.predictions[:, -1:] == truth)

    def data_hash(self) -> str:
        """SHA-256 of the samples' scores, predictions and labels."""
        digest = hashlib.sha256(str(self.scores.shape).encode())
        for array in (self.scores, self.predictions, self.labels):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def part(self, rows: np.ndarray) -> ExitMatrix:
        """Observations of some of the samples, by index or mask."""
        labels = None if self.labels is None else self.labels[rows]
        return ExitMatrix(
            exits=self.exits,
            score=self.score,
            scores=self.scores[rows],
            predictions=self.predictions[rows],
            labels=labels,
            model_hash=self.model_hash,
        )

    def check_model(self, model_hash: str) -> None:
        """Reject observations of another network.

        Raises
        ------
        MatrixError
            If both hashes are known and differ.
        """
        if "" not in (self.model_hash, model_hash) and self.model_hash != model_hash:
            raise MatrixError(
                f"the observations are of another network: got the hash {self.model_hash}; "
                f"expected {model_hash}. Observe this network: 'layoutsel exits observe'"
            )

    def save(self, file: Path | str) -> None:
        """Write the observations to an ``.npz`` file atomically."""
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "version": np.array(VERSION),
            "exits": np.array(self.exits),
            "score": np.array(self.score),
            "model_hash": np.array(self.model_hash),
            "scores": self.scores,
            "predictions": self.predictions,
        }
        if self.labels is not None:
            arrays["labels"] = self.labels
        with replacing(file) as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, file: Path | str, *, score: str = "max_prob") -> ExitMatrix:
        """Read observations that :meth:`save` wrote, or those of other programs.

        Those of other programs, such as Apparate (SOSP 2024), are two arrays, (early exits,
        samples): ``conf`` has the scores, and ``acc`` has 1 where an early exit agrees with the
        final one and 0 elsewhere.

        Parameters
        ----------
        file
            An ``.npz`` file.
        score
            Kind of the scores, for files of other programs.

        Raises
        ------
        MatrixError
            If the file is unreadable or has other arrays.
        """
        try:
            arrays = read_arrays(file, MOST_BYTES)
            if {"conf", "acc"} <= set(arrays):
                return cls.from_correct(arrays["conf"], arrays["acc"], score=score)
            return cls(**_own_fields(arrays))
        except ArraysError as error:
            raise MatrixError(str(error)) from error
        except MatrixError as error:
            raise MatrixError(f"{file}: {error}") from error

    @classmethod
    def from_correct(
        cls, scores: np.ndarray, correct: np.ndarray, *, score: str = "max_prob"
    ) -> ExitMatrix:
        """Make observations of early exits that agree with the final one, or not.

        Answers like the final one become class 0, and others class 1. Patience has no meaning for
        them, as wrong answers may differ.

        Parameters
        ----------
        scores
            Scores of the early exits, (E - 1, N).
        correct
            1 or True for answers like the final one, 0 or False for others, (E - 1, N).
        score
            Entry of :data:`layoutsel.exits.scores.SCORES`.

        Raises
        ------
        MatrixError
            If the arrays do not fit each other, or have values that are out of range.
        """
        if scores.ndim != 2 or scores.shape != correct.shape:
            raise MatrixError(
                f"got scores (conf) of shape {scores.shape} and answers (acc) of shape "
                f"{correct.shape}; expected one shape (early exits, samples)"
            )
        if not np.isin(correct, (0, 1)).all():
            raise MatrixError("got answers (acc) other than 0 and 1; expected 1 for right answers")
        final = np.ones((scores.shape[1], 1))
        wrong = 1 - correct.astype(np.int64).T
        return cls(
            exits=(*(f"exit{index + 1}" for index in range(len(scores))), "final"),
            score=score,
            scores=np.hstack([_numbers("conf", scores).T, final]),
            predictions=np.hstack([wrong, np.zeros_like(final, np.int64)]),
        )


def _own_fields(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arguments of :class:`ExitMatrix` from the arrays of its file."""
    needed = ("format", "version", "exits", "score", "scores", "predictions")
    if missing := [name for name in needed if name not in arrays]:
        raise MatrixError(
            f"got the arrays {', '.join(arrays) or 'none'}; expected {', '.join(missing)} as well "
            f"(a file of 'layoutsel exits observe'), or conf and acc"
        )
    if str(arrays["format"]) != FORMAT or arrays["version"] != VERSION:
        renew = "Make the file again with 'layoutsel exits observe'"
        found = int(arrays["version"]) if arrays["version"].dtype.kind in "iu" else 0
        raise MatrixError(
            f"got {arrays['format']} version {arrays['version']}; expected {FORMAT} version "
            f"{expected_version(found, (VERSION,), renew)}"
        )
    labels = arrays.get("labels")
    return {
        "exits": tuple(str(name) for name in np.atleast_1d(arrays["exits"])),
        "score": str(arrays["score"]),
        "scores": _numbers("scores", arrays["scores"]),
        "predictions": _classes("predictions", arrays["predictions"]),
        "labels": None if labels is None else _classes("labels", labels),
        "model_hash": str(arrays.get("model_hash", "")),
    }


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise MatrixError(f"got {name} of type {array.dtype}; expected numbers")
    return array.astype(np.float64)


def _classes(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise MatrixError(f"got {name} of type {array.dtype}; expected integers")
    return array.astype(np.int64)


def _faults(matrix: ExitMatrix) -> Iterator[str]:
    """Faults of the arrays, the first of which is an error."""
    scores, count = matrix.scores, len(matrix.exits)
    if count < 2:
        yield f"got {count} exit; expected at least one exit before the final one"
    if len(set(matrix.exits)) < count:
        yield f"got the exits {', '.join(matrix.exits)}; expected different names"
    if scores.ndim != 2 or scores.shape[1] != count:
        yield f"got scores of shape {scores.shape}; expected (N, {count}), a column for each exit"
    if not len(scores):
        yield "got no samples; expected at least one"
    shapes = {"predictions": (matrix.predictions, scores.shape)}
    if matrix.labels is not None:
        shapes["labels"] = (matrix.labels, scores.shape[:1])
    if scores.dtype != np.float64:
        yield f"got scores of type {scores.dtype}; expected float64"
    for name, (array, shape) in shapes.items():
        if array.shape != shape or array.dtype != np.int64:
            yield f"got {name} of {array.dtype} {array.shape}; expected int64 {shape}"
        if (array < 0).any():
            yield f"got the class {array.min()} in {name}; expected classes from 0 on"
    outside = (scores < 0) | (scores > 1)  # False for NaN
    if outside.any():
        row, column = np.argwhere(outside)[0]
        yield (
            f"got the score {scores[row, column]:g} of sample {row} at the exit "
            f"{matrix.exits[column]!r}; expected scores within [0, 1]"
        )
