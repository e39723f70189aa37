"""``layoutsel search``: networks that are searched for the nodes that run them."""

from __future__ import annotations

from collections.abc import Callable

import typer

from layoutsel.cli import (
    search_bench,
    search_demo,
    search_deploy,
    search_joint,
    search_offload,
    search_show,
)
from layoutsel.cli.guard import guarded

app = typer.Typer(
    name="search",
    no_args_is_help=True,
    help="Search a network together with its division over nodes.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "offload": search_offload.offload,
    "joint": search_joint.joint,
    "show": search_show.show,
    "deploy": search_deploy.deploy,
    "bench": search_bench.bench,
    "demo": search_demo.demo,
}
"""Functions of the commands, by name."""

for _name, _command in COMMANDS.items():
    app.command(_name)(guarded(_command))
