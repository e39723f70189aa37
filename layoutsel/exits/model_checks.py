"""Checks that a compiled model, its exits, an arrangement and a policy fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layoutsel.errors import LayoutselError
from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement, WorkerKind
from layoutsel.exits.policy import Policy
from layoutsel.exits.scores import RESULTS
from layoutsel.runtime.compiled import CompiledModel


def check_parts(
    compiled: CompiledModel,
    exits: Sequence[str],
    arrangement: Arrangement,
    policy: Policy,
    kinds: Mapping[str, WorkerKind],
    answer: str,
) -> None:
    """Reject parts that do not fit each other; they are those of an :class:`ExitModel`.

    Raises
    ------
    LayoutselError
        If they do not fit.
    """
    count = len(exits)
    used = {name for name in (arrangement.trunk, *arrangement.branches) if name is not None}
    dtypes = [one.dtype for one in compiled.outputs][: RESULTS * count]
    scored = dtypes[1::RESULTS] == ["float32"] * count and dtypes[2::RESULTS] == ["int64"] * count
    for is_right, got, expected in (
        (answer in ANSWERS, f"answer={answer!r}", f"one of {', '.join(ANSWERS)}"),
        (
            len(arrangement.branches) == count - 1,
            f"{len(arrangement.branches)} branches",
            f"{count - 1}, one for each exit before the final one",
        ),
        (
            len(policy.thresholds) == count,
            f"{len(policy.thresholds)} thresholds",
            f"{count}, one for each exit",
        ),
        (kinds.keys() >= used, f"the workers {sorted(used)}", f"some of {', '.join(kinds)}"),
        (
            compiled.uses_devices or not any(kinds[name].device for name in used if name in kinds),
            f"a model for the host's cores, and the workers {', '.join(sorted(used))}",
            "one that was compiled for the devices of its workers",
        ),
        (
            scored,
            f"a model with results of the types {dtypes}",
            "values of the classes, a float32 score and an int64 class for each exit: compile the "
            "scored model of the network",
        ),
    ):
        if not is_right:
            raise LayoutselError(f"multi-exit network: got {got}; expected {expected}")
