"""``layoutsel exits observe`` and ``calibrate``: from samples to a certified policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.activity import activity
from layoutsel.cli.exits_network import SpecOption, network_of
from layoutsel.cli.options import (
    JsonFlag,
    LimitOption,
    LinksFlag,
    ModelArgument,
    ShapeOption,
    parse_seconds,
)
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError
from tvm_passes.limits import parse_limits

if TYPE_CHECKING:
    from rich.table import Table

    from layoutsel.exits.matrix import ExitMatrix
    from layoutsel.exits.policy import Policy

SCHEMA_VERSION = 1
"""Version of the JSON output of ``observe``."""


def observe(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA.npz",
            help="An array for each input, samples along the first axis, and optionally 'labels', "
            "the true classes.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Observations to write (.npz).",
            show_default=False,
        ),
    ],
    spec: SpecOption = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            metavar="NAME",
            help="Kind of score: max_prob, margin or entropy.",
            show_default="the network's, else max_prob",
        ),
    ] = None,
    time_limit: Annotated[
        str,
        typer.Option("--time-limit", metavar="TIME", help="Time limit for all samples."),
    ] = "10m",
    shape: ShapeOption = None,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
    json: JsonFlag = False,
) -> None:
    """Compute score and prediction of every exit for the samples of a file."""
    check_output(output)
    limits, limit_s = parse_limits(import_limit), parse_seconds(time_limit)
    with activity() as shown:
        from layoutsel.exits.observing import observe
        from layoutsel.exits.scores import SCORES

        if score is not None and score not in SCORES:
            raise LayoutselError(f"--score {score}: expected one of {', '.join(SCORES)}")
        network = network_of(shown, model, spec, shape, allow_external_links, limits)
        shown.phase(f"computing all exits for {data}")
        seen = observe(network, data, score=score, time_limit_s=limit_s)
    seen.save(output)
    if json:
        terminal.show_json(_observed(seen))
    else:
        terminal.show(_observed_table(seen))
        terminal.show_text(
            f"{seen.samples} samples with the score {seen.score} written to {output}"
        )


def calibrate(
    observations: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Observations of 'layoutsel exits observe', or arrays conf and acc of other "
            "programs (.npz).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Policy to write (JSON).", show_default=False
        ),
    ],
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop",
            metavar="SHARE",
            help="Largest share of samples with a wrong early answer where the final one is right.",
        ),
    ] = 0.01,
    confidence: Annotated[
        float,
        typer.Option("--confidence", metavar="P", help="Probability of the certificate."),
    ] = 0.95,
    proof: Annotated[
        Path | None,
        typer.Option(
            "--proof",
            metavar="FILE",
            help="Observations of other samples, for the certificate alone.",
            show_default="half of FILE",
        ),
    ] = None,
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            metavar="W1,W2,…",
            help="Work up to each exit, the final one last, in any unit.",
            show_default="equal work between exits",
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            metavar="time|accuracy",
            help="Thresholds with the least expected work, or of equal accuracy at all exits.",
        ),
    ] = "time",
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="K",
            help="Equal predictions of K exits in a row also make the last of them sure.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random halves.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Choose thresholds of the scores, and certify the accuracy that they keep."""
    check_output(output)
    from layoutsel import documents
    from layoutsel.exits.calibrating import calibrate
    from layoutsel.exits.matrix import ExitMatrix
    from layoutsel.exits.pattern_times import sequential

    if seed < 0:
        raise LayoutselError(f"--seed {seed}: expected a number from 0 on")
    seen = ExitMatrix.load(observations)
    made = calibrate(
        seen,
        max_drop=max_drop,
        confidence=confidence,
        times=None if work is None else sequential(parse_work(work, len(seen.exits))),
        proof=None if proof is None else ExitMatrix.load(proof),
        rule=rule,
        patience=patience,
        seed=seed,
    )
    made.save(output)
    if json:
        terminal.show_json(documents.to_json(made))
    else:
        terminal.show(_policy_table(made, seen))
        terminal.show_text(promise(made))
        terminal.show_text(f"policy written to {output}")


def parse_work(text: str, exits: int) -> list[float]:
    """Parse ``0.2,0.5,1``.

    Raises
    ------
    LayoutselError
        If the text is not a number for each exit.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != exits:
        raise LayoutselError(
            f"--work {text}: expected {exits} numbers, one for each exit, such as "
            f"{','.join(f'{(i + 1) / exits:.2g}' for i in range(exits))}"
        )
    return found


def _observed(seen: ExitMatrix) -> dict[str, object]:
    """Collect what ``observe`` prints, as JSON data."""
    import numpy as np

    right = seen.predictions == seen.truth[:, None]
    agrees = seen.predictions == seen.predictions[:, -1:]
    return {
        "schema_version": SCHEMA_VERSION,
        "samples": seen.samples,
        "score": seen.score,
        "exits": [
            {
                "name": name,
                "accuracy": None if seen.labels is None else float(right[:, i].mean()),
                "agreement": float(agrees[:, i].mean()),
                "without_score": int(np.isnan(seen.scores[:, i]).sum()),
            }
            for i, name in enumerate(seen.exits)
        ],
    }


def _observed_table(seen: ExitMatrix) -> Table:
    from layoutsel.report.plan_tables import new_table

    columns = ("exit", "accuracy %", "as final %", "NaN scores")
    table = new_table(*columns, right=columns[1:])
    exits = _observed(seen)["exits"]
    assert isinstance(exits, list)
    for one in exits:
        accuracy = "" if one["accuracy"] is None else f"{100 * one['accuracy']:.2f}"
        agreement = f"{100 * one['agreement']:.2f}"
        table.add_row(one["name"], accuracy, agreement, str(one["without_score"]))
    return table


def _policy_table(policy: Policy, seen: ExitMatrix) -> Table:
    """Thresholds, and the share of samples that each exit is the first to be sure of."""
    import numpy as np

    from layoutsel.report.plan_tables import new_table

    table = new_table(
        "exit", "threshold", "sure %", "first sure %", right=("sure %", "first sure %")
    )
    sure = np.column_stack([policy.sure(seen), np.ones(seen.samples, bool)])
    first = sure.argmax(axis=1)
    for i, (name, threshold) in enumerate(zip(seen.exits, policy.thresholds, strict=True)):
        off = "always" if i == len(seen.exits) - 1 else "off"
        shown = off if threshold is None else f"{threshold:.6g}"
        shares = (f"{100 * one.mean():.1f}" for one in (sure[:, i], first == i))
        table.add_row(name, shown, *shares)
    return table


def promise(policy: Policy) -> str:
    """Line about the accuracy that a policy keeps."""
    proof = policy.certificate
    if proof is None:
        return "no exit is of any use: the network always runs to the end"
    truth = "" if proof.has_labels else " (compared with the final exit: there are no labels)"
    return (
        f"certified at confidence {proof.confidence:g}: at most {100 * proof.max_drop:g} % of "
        f"samples lose, whichever sure exit answers first; {proof.losses} of {proof.samples} "
        f"samples lost{truth}"
    )


COMMANDS: dict[str, Callable[..., None]] = {"observe": observe, "calibrate": calibrate}
"""Functions of the commands, by name."""
