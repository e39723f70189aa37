"""Artifacts of distributions: the whole network, compiled once for each machine class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import layoutsel
from layoutsel.bundling.deployment import write_artifact
from layoutsel.cluster.distribution import Distributions
from layoutsel.compile.options import Options
from layoutsel.compile.session import Session
from layoutsel.core.files import make_folder
from layoutsel.planning.check_fits import check_fits
from layoutsel.planning.plan import Plan


def build(
    model: Any,
    distributions: Distributions,
    folder: Path | str,
    *,
    machines: Path | str = ".",
    **options: Any,
) -> dict[str, Path]:
    """Compile a network for every machine class, with one stage for each atom.

    The artifact for this machine is checked against ONNX Runtime; those for others cannot run here.

    Parameters
    ----------
    model
        Model that the distributions were made for.
    distributions
        Distributions with the plans of the classes.
    folder
        Folder to write into, one file ``<class>.so`` each; made if it does not exist.
    machines
        Folder that the topology's machine files are relative to.
    **options
        Options of :func:`layoutsel.compile_plan`.

    Returns
    -------
    dict
        Files by machine class, as :func:`~layoutsel.cluster.deploy` takes them.

    Raises
    ------
    PlanMismatch
        If the model is another one.
    LayoutselError
        If a class cannot be built for.
    """
    folder = Path(folder)
    make_folder(folder)
    found = {}
    for name, plan in distributions.plans.items():
        machine = _machine_of(distributions, name)
        file = folder / f"{name}.so"
        if machine:
            _build_there(model, plan, file, Path(machines) / machine, options)
        else:
            layoutsel.compile_plan(model, plan, **options).save(file)
        found[name] = file
    return found


def _machine_of(distributions: Distributions, name: str) -> str:
    """Machine file of a class; empty for this machine."""
    by_id = {node.id: node for node in distributions.topology.nodes}
    return next(by_id[node].machine for node, one in distributions.classes.items() if one == name)


def _build_there(
    model: Any, plan: Plan, file: Path, machine: Path, options: dict[str, Any]
) -> None:
    """Build for a machine that is described by a file."""
    asked = Options(
        **{
            **options,
            "machine": machine,
            "threads": plan.threads,
            "precision": plan.precision,
            "max_rel_error": plan.max_rel_error,
            "units": sorted({decision.unit for decision in plan.decisions.values()}),
        }
    )
    session = Session.open(model, asked)
    check_fits(plan, model_hash=session.model.content_hash, ids=session.graph.ids)
    write_artifact(session, plan, file)
