"""Joint search: networks and placements together, by exact fronts of a surrogate of the accuracy.

Common weights of all networks are trained once. Then a surrogate of their accuracy is fitted to the
networks that were asked, its additive part gives the exact front of networks with placements, and
networks on it are asked next. A few networks of the front are trained on their own at the end. What
their training adds corrects the accuracies of the others before the next one is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scipy.stats import kendalltau

from layoutsel.core.files import make_folder, replacing
from layoutsel.device.training import check_torch
from layoutsel.search.found import NETWORK, SHARED, TUNE, FoundNetwork
from layoutsel.search.front import FrontPoint
from layoutsel.search.joint.asking import AskedNetworks
from layoutsel.search.joint.question import RETRAIN_RATE
from layoutsel.search.joint.tasks import Pass, Retraining, SharedTraining, TrainingSchedule
from layoutsel.search.joint.trainer import TIME_LIMIT_S, JointTrainer, Progress
from layoutsel.search.parts import parts_of
from layoutsel.search.placed_network import found_network
from layoutsel.search.pricing import priced
from layoutsel.search.run_folder import RunFolder, SearchQuestion
from layoutsel.search.trained import write_trained

CHECKPOINT = "shared.pt"
"""File of the common weights."""

_COMMON = "shared"
"""Name of the common weights in reports."""

Say = Callable[[str], None]
"""Function that shows a line of text."""


@dataclass(frozen=True, kw_only=True)
class _LoggedPass:
    """A pass over the data, in the log."""

    report: Pass
    """Report of the training."""


def search_joint(
    run: RunFolder,
    say: Say,
    *,
    progress: Progress = lambda _report: None,
    threads: int = 1,
    limit_s: float = TIME_LIMIT_S,
) -> list[FoundNetwork]:
    """Search networks with placements, from where an earlier search in the folder ended.

    Parameters
    ----------
    run
        Folder of the search.
    say
        Function that shows a line of text.
    progress
        Receives a report about each pass over the training data.
    threads
        Number of threads of the training.
    limit_s
        Time limit of the trainings and evaluations, seconds.

    Returns
    -------
    list of FoundNetwork
        Trained networks in ascending order of their time, as in the folder.

    Raises
    ------
    NoNetwork
        If no network keeps the limits; names the tightest one.
    TrainingFailed
        If PyTorch is missing, or the training fails or takes too long.
    LayoutselError
        If another process searches in the folder, or a file of it is damaged.
    """
    check_torch()
    question = run.question
    task = SharedTraining(
        space=question.space,
        schedule=TrainingSchedule(epochs=int(question.settings["epochs"])),
        seed=question.seed,
        threads=threads,
        checkpoint=str(run.path.resolve() / CHECKPOINT),
    )

    def report(made: Pass) -> None:
        run.log("pass", report=made)
        progress(made)

    with run.reserved():
        asked = AskedNetworks(run, priced(run))
        with JointTrainer(task, limit_s=limit_s) as trainer:
            say(f"training common weights of {question.space.size:.3g} networks")
            trainer.train(report)
            while chosen := asked.next():
                asked.add(chosen, trainer.accuracies(chosen))
                say(asked.state())
            while (point := asked.next_to_train()) is not None:
                found = _trained(run, asked, point, trainer, report)
                asked.trained[found.architecture] = found.accuracies[TUNE]
                say(
                    f"trained network {found.number}: {100 * found.accuracies[SHARED]:.1f} % right "
                    f"with common weights, {100 * found.accuracies[TUNE]:.1f} % afterwards"
                )
    all_found = sorted(run.found(), key=lambda one: one.predicted_us)
    if len(all_found) > 2:
        pairs = [(one.accuracies[SHARED], one.accuracies[TUNE]) for one in all_found]
        say(
            "rank correlation (Kendall) of accuracies with common weights and after training: "
            f"{kendalltau(*zip(*pairs, strict=True)).statistic:.2f}"
        )
    say(_costs(run, asked))
    return all_found


def _costs(run: RunFolder, asked: AskedNetworks) -> str:
    """Tell what the search has asked and trained, with its processor time."""
    shared = own = 0.0
    for made in run.logged("pass", _LoggedPass):
        if made.report.network == _COMMON:
            shared += made.report.cpu_s
        else:
            own += made.report.cpu_s
    return (
        f"cost: {len(asked.accuracies)} accuracies and {len(asked.trained)} trained networks, "
        f"{shared:.0f} s of processor time for common weights, {own:.0f} s for the networks"
    )


def _trained(
    run: RunFolder,
    asked: AskedNetworks,
    point: FrontPoint,
    trainer: JointTrainer,
    report: Callable[[Pass], None],
) -> FoundNetwork:
    """Train a network on its own, and write it."""
    question, number = run.question, len(asked.trained)
    task = Retraining(
        name=f"network {number}",
        architecture=point.architecture,
        schedule=_retraining(question),
    )
    made = trainer.retrained(task, report)
    graph = parts_of(question.space, point.architecture)
    found = found_network(
        question,
        asked.table,
        number,
        point.architecture,
        graph,
        point.nodes,
        {SHARED: asked.accuracies[point.architecture], **made.accuracies},
    )
    folder = run.folder_of(number)
    make_folder(folder)
    with replacing(folder / NETWORK) as stream:
        stream.write(write_trained(graph, made.weights).SerializeToString())
    run.keep(found)
    run.log("trained", number=number, accuracies=made.accuracies, cpu_s=made.cpu_s)
    return found


def _retraining(question: SearchQuestion) -> TrainingSchedule:
    return TrainingSchedule(
        epochs=int(question.settings["retrain_epochs"]), rate=RETRAIN_RATE, networks=1
    )
