"""``layoutsel cluster compile`` and ``run``: artifacts for the nodes, and requests through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layoutsel.cli.cluster_nodes import (
    AddressOption,
    InsecureFlag,
    TlsOption,
    TokenOption,
    security_of,
)
from layoutsel.cli.options import ModelArgument
from layoutsel.core.files import check_output
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    import numpy as np

    from layoutsel.cluster.deployed_network import DeployedNetwork

DistributionsArgument = Annotated[
    Path,
    typer.Argument(metavar="D.json", help="File of 'layoutsel cluster plan'.", show_default=False),
]


def compile_model(
    model: ModelArgument,
    distributions: DistributionsArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder to write.", show_default=False),
    ],
    machines: Annotated[
        Path | None,
        typer.Option(
            "--machines",
            metavar="DIR",
            help="Folder of the topology's machine files.",
            show_default="that of D.json",
        ),
    ] = None,
) -> None:
    """Compile a model once for each machine class of its distributions."""
    from layoutsel.cluster.building import build
    from layoutsel.cluster.distribution import Distributions

    document = Distributions.load(distributions)
    made = build(model, document, output, machines=machines or distributions.parent)
    for name, file in made.items():
        nodes = ", ".join(node for node, one in document.classes.items() if one == name)
        terminal.show_text(f"{file}: nodes {nodes}")


def run(
    distributions: DistributionsArgument,
    target: Annotated[
        str,
        typer.Option(
            "--target", metavar="NAME", help="Target whose distribution runs.", show_default=False
        ),
    ],
    artifact: Annotated[
        list[str],
        typer.Option(
            "--artifact",
            metavar="[CLASS=]PATH",
            help="Compiled model of a machine class, repeatable; or folder of 'cluster compile'.",
            show_default=False,
        ),
    ],
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="X.npz",
            help="Arrays by the names of inputs; absent ones are random.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="Y.npz", help="Results.", show_default=False),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Chrome trace with a row for each node and link.",
            show_default=False,
        ),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            "--statistics", metavar="FILE", help="Statistics to write.", show_default=False
        ),
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, metavar="N", help="Number of requests.")
    ] = 10,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="ray|local|emulated",
            help="Nodes that have joined, or threads of this process, which may emulate the links "
            "and loads that the distribution was planned for.",
        ),
    ] = "ray",
    fallback: Annotated[
        str | None,
        typer.Option(
            "--fallback",
            metavar="local",
            help="Compute here if no other node is left.",
            show_default=False,
        ),
    ] = None,
    address: AddressOption = "auto",
    token_file: TokenOption = None,
    tls: TlsOption = None,
    insecure: InsecureFlag = False,
) -> None:
    """Run a distribution on its nodes, and time it."""
    for file in (output, trace, statistics):
        check_output(file)
    from layoutsel.cluster.deploying import deploy
    from layoutsel.cluster.distribution import Distributions
    from layoutsel.documents.arrays import read_arrays

    document = Distributions.load(distributions)
    classes = sorted(set(document.classes.values()))
    given = {} if input_ is None else read_arrays(input_)
    with deploy(
        document,
        target,
        _artifacts(artifact, classes),
        engine=engine,
        fallback=fallback,
        security=security_of(token_file, tls, insecure),
        address=address,
    ) as deployed:
        results = _timed(deployed, given, repeat)
        if trace is not None:
            deployed.save_trace(trace)
            terminal.show_text(f"trace written to {trace}")
        if statistics is not None:
            deployed.statistics().save(statistics)
    if output is not None:
        import numpy as np

        from layoutsel.core.files import replacing

        with replacing(output) as stream:
            np.savez(stream, **results)  # type: ignore[arg-type]
        terminal.show_text(f"written {output}")


def _artifacts(texts: Sequence[str], classes: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        name, separator, file = text.rpartition("=")
        if separator and name not in classes:
            raise LayoutselError(
                f"--artifact {text!r}: got the machine class {name!r}; expected one of "
                f"{', '.join(classes)}"
            )
        named = [name] if separator else classes
        path = Path(file)
        found |= {one: path / f"{one}.so" if path.is_dir() else path for one in named}
    return found


def _timed(
    deployed: DeployedNetwork, given: Mapping[str, np.ndarray], repeat: int
) -> dict[str, np.ndarray]:
    """Results of one request by name, after `repeat` of them; shows the times."""
    from layoutsel.runtime.samples import random_inputs

    names = [signature.name for signature in deployed.inputs]
    inputs = {**dict(zip(names, random_inputs(deployed.inputs), strict=True)), **given}
    first = deployed(**inputs)
    start = time.perf_counter()
    for _ in deployed.stream(inputs for _ in range(repeat)):
        pass
    total_s = time.perf_counter() - start
    requests = deployed.statistics().requests
    latency = f", median latency {requests.p50_us / 1e3:.2f} ms" if requests else ""
    terminal.show_text(f"{repeat} requests in {total_s:.2f} s, {repeat / total_s:.1f} Hz{latency}")
    counts = {name: count for name, count in deployed.counts.items() if name != "answers"}
    for name, count in sorted(counts.items()):
        terminal.show_text(f"{name}: {count}")
    results = first if isinstance(first, tuple) else (first,)
    return {one.name: array for one, array in zip(deployed.outputs, results, strict=True)}


COMMANDS: dict[str, Callable[..., None]] = {"compile": compile_model, "run": run}
"""Functions of the commands on distributions, by name."""
