"""Table of commands; importing it loads no heavy library, so that help is instant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from layoutsel.cli import (
    bench,
    bundle,
    cluster,
    compile_model,
    demo,
    doctor,
    exits,
    explain,
    inspect_model,
    learn,
    plan,
    profile,
    run,
    runtime,
    search,
    tune,
)
from layoutsel.cli.guard import DEBUG_FLAG, guarded

app = typer.Typer(
    name="layoutsel",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "inspect": inspect_model.inspect_model,
    "plan": plan.plan,
    "tune": tune.tune,
    "compile": compile_model.compile_model,
    "run": run.run,
    "bundle": bundle.bundle,
    "runtime": runtime.runtime,
    "bench": bench.bench,
    "explain": explain.explain,
    "doctor": doctor.doctor,
    "demo": demo.demo,
    "profile": profile.profile,
    "train": learn.train,
    "evaluate": learn.evaluate,
    "calibrate": learn.calibrate,
}
"""Functions of the commands, by name."""

for _name, _command in COMMANDS.items():
    app.command(_name)(guarded(_command))


app.add_typer(cluster.app, name="cluster")
app.add_typer(exits.app, name="exits")
app.add_typer(search.app, name="search")


def _show_version(asked: bool) -> None:
    if asked:
        from layoutsel import __version__

        typer.echo(f"layoutsel {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    _debug: Annotated[
        bool, typer.Option(DEBUG_FLAG, help="Show the traceback of an error; allowed anywhere.")
    ] = False,
) -> None:
    """Choose unit, layout and precision for every part of a neural network, and build it."""
