"""Measurements of multi-exit networks on samples: answers, times, and arrangements in turns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layoutsel.device.core_load import BusyProcess
from layoutsel.device.load_generators import generating
from layoutsel.exits.arrangement import Arrangement, devices_in
from layoutsel.exits.building import model_of, plan_in
from layoutsel.exits.executor import LIMIT_S, ExitModel
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.exit_pins import all_options
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.load_aware import LoadAwareModel
from layoutsel.exits.load_aware_building import TABLE, open_for_loads
from layoutsel.exits.samples import Samples
from layoutsel.runtime.loading import load as load_compiled

BY_LOAD, CHOSEN, SEQUENTIAL, BESIDE, ALONE = (
    "by the load",
    "as compiled",
    "exits in sequence",
    "exits beside the trunk",
    "trunk alone",
)
"""Names of arrangements."""
ROUNDS = 3
"""Default number of rounds over all samples."""
TIME_LIMIT_S = 60.0
"""Default time limit of a comparison, seconds."""
SETTLE_S = 1.0
"""Time for networks that adapt to notice a new load, seconds."""
_LOAD_LIMIT_S = 3600.0
"""Time limit of a load, which ends with its block, seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """Answers of one model."""

    answers: tuple[ExitAnswer, ...]
    """Answers."""
    labels: np.ndarray | None
    """True class of each answer's sample; None if unknown."""

    @property
    def times_us(self) -> np.ndarray:
        """Time of each answer, microseconds."""
        return np.array([answer.us for answer in self.answers])

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None if the classes are unknown."""
        if self.labels is None:
            return None
        return float((np.array([answer.label for answer in self.answers]) == self.labels).mean())

    @property
    def shares(self) -> Mapping[str, float]:
        """Share of the answers by exit."""
        counts = Counter(answer.exit for answer in self.answers)
        return {name: count / len(self.answers) for name, count in counts.items()}

    def of_exit(self, name: str) -> Answered:
        """Answers of one exit."""
        chosen = [index for index, one in enumerate(self.answers) if one.exit == name]
        labels = None if self.labels is None else self.labels[chosen]
        return Answered(answers=tuple(self.answers[index] for index in chosen), labels=labels)

    def latencies(self) -> dict[str, float]:
        """Mean and quantiles of the times, microseconds."""
        times_us = self.times_us
        quantiles = np.quantile(times_us, (0.5, 0.95, 0.99), method="inverted_cdf")
        named = zip(("p50_us", "p95_us", "p99_us"), map(float, quantiles), strict=True)
        return {"mean_us": float(times_us.mean()), **dict(named)}

    def summary(self) -> dict[str, object]:
        """Latencies, shares and accuracy, as JSON data."""
        return {
            "answers": len(self.answers),
            **self.latencies(),
            "shares": dict(self.shares),
            "accuracy": self.accuracy,
        }


def answered(model: ExitModel | LoadAwareModel, samples: Samples) -> Answered:
    """Answer all samples once."""
    answers = tuple(model(*inputs) for inputs in samples.inputs)
    return Answered(answers=answers, labels=samples.labels)


@contextmanager
def contenders(
    path: Path | str, *, limit_s: float = LIMIT_S
) -> Iterator[Mapping[str, ExitModel | LoadAwareModel]]:
    """Open an artifact in several arrangements while the block runs.

    They are that of its plan, all exits in sequence, all parallel to the trunk, and the trunk
    alone. If the artifact has a table of arrangements by load, the network that adapts comes first.
    All of them share code and weights. Arrangements that are equal appear once. A plan with stages
    on a device is compared with the host's trunk alone.

    Parameters
    ----------
    path
        Artifact of a multi-exit network.
    limit_s
        Time limit of a request on a worker, seconds.

    Raises
    ------
    LayoutselError
        If the file is no such artifact.
    """
    compiled = load_compiled(path)
    plan = plan_in(compiled.header, str(path))
    with ExitStack() as stack:
        found: dict[str, ExitModel | LoadAwareModel] = {}
        if TABLE in compiled.header:
            found[BY_LOAD] = stack.enter_context(open_for_loads(compiled, limit_s=limit_s))
        for name, one in _arrangements(plan).items():
            arranged = replace(plan, arrangement=one)
            found[name] = stack.enter_context(model_of(compiled, arranged, limit_s=limit_s))
        if (fallback := compiled.fallback) is not None:
            alone = plan_in(fallback.header, f"the fallback of {path}")
            found[ALONE] = stack.enter_context(model_of(fallback, alone, limit_s=limit_s))
        yield found


def _arrangements(plan: ExitPlan) -> dict[str, Arrangement]:
    """Arrangements of one artifact by name, without repetitions."""
    if devices_in(plan.arrangement, plan.costs.workers):
        return {CHOSEN: plan.arrangement}  # others run on other code
    trunk = plan.arrangement.trunk
    threads = {kind.name: kind.threads for kind in plan.costs.workers}
    may_answer = [threshold is not None for threshold in plan.policy.thresholds[:-1]]
    options = all_options(plan.costs, may_answer).branches
    inline = tuple(trunk if trunk in of else None for of in options)
    off: tuple[str | None, ...] = (None,) * len(options)
    named = [
        (SEQUENTIAL, Arrangement(trunk=trunk, branches=inline)),
        *(
            (BESIDE, one.arrangement)
            for one in plan.baselines
            if threads[one.arrangement.trunk] == threads[trunk]
            and not devices_in(one.arrangement, plan.costs.workers)
            and set(one.arrangement.branches) - {None, one.arrangement.trunk}
        ),
        (ALONE, Arrangement(trunk=trunk, branches=off)),
    ]
    found = {CHOSEN: plan.arrangement}
    for name, one in named:
        if one not in found.values():
            found[name] = one
    return found


def compare(
    models: Mapping[str, ExitModel | LoadAwareModel],
    samples: Samples,
    *,
    rounds: int = ROUNDS,
    time_limit_s: float = TIME_LIMIT_S,
) -> dict[str, Answered]:
    """Answer all samples with each model in turns, sample by sample.

    The order of the models changes from one sample to the next. After the time limit, only rounds
    that are complete count, and one always is.

    Parameters
    ----------
    models
        Models of one network.
    samples
        Samples.
    rounds
        Number of rounds over all samples.
    time_limit_s
        Time limit, seconds.
    """
    names = list(models)
    answers: dict[str, list[ExitAnswer]] = {name: [] for name in names}
    end_s = time.monotonic() + time_limit_s
    for number in range(rounds):
        if number and time.monotonic() > end_s:
            break
        for index, inputs in enumerate(samples.inputs):
            for name in _rotated(names, index + number):
                answers[name].append(models[name](*inputs))
    labels = samples.labels
    return {
        name: Answered(
            answers=tuple(found), labels=None if labels is None else np.resize(labels, len(found))
        )
        for name, found in answers.items()
    }


@contextmanager
def busy_core(share: float, *, settle_s: float = 0.0) -> Iterator[None]:
    """Let another process compute on the first core in a block.

    Parameters
    ----------
    share
        Share of the time for which it computes, 0 to 1.
    settle_s
        Time before the block begins, seconds: :data:`SETTLE_S` for networks that adapt.
    """
    processes = [BusyProcess(core=0, duty=share)] if share else []
    with generating(processes, limit_s=_LOAD_LIMIT_S):
        time.sleep(settle_s)
        yield


def _rotated(names: Sequence[str], by: int) -> list[str]:
    start = by % len(names)
    return [*names[start:], *names[:start]]
