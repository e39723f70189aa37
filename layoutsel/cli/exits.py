"""``layoutsel exits``: networks with several exits."""

from __future__ import annotations

from collections.abc import Callable

import typer

from layoutsel.cli import (
    exits_bench,
    exits_demo,
    exits_explain,
    exits_inspect,
    exits_plan,
    exits_policy,
    exits_run,
    exits_train,
)
from layoutsel.cli.guard import guarded

app = typer.Typer(
    name="exits",
    no_args_is_help=True,
    help="Networks with several exits.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "inspect": exits_inspect.inspect,
    "train": exits_train.train,
    **exits_policy.COMMANDS,
    "plan": exits_plan.plan,
    "explain": exits_explain.explain,
    **exits_run.COMMANDS,
    "bench": exits_bench.bench,
    "demo": exits_demo.demo,
}
"""Functions of the commands, by name."""

for _name, _command in COMMANDS.items():
    app.command(_name)(guarded(_command))
