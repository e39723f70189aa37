"""``layoutsel demo``: the whole workflow on ResNet-50."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from layoutsel.cli.options import (
    CacheOption,
    LimitOption,
    LinksFlag,
    MaxErrorOption,
    PrecisionOption,
    ThreadsOption,
)
from layoutsel.report import terminal

MODEL = "light:resnet50"
"""Default model."""
PEERS = ("onnxruntime", "tvm")
"""Engines to compare with."""


def demo(
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    precision: PrecisionOption = "f32",
    max_rel_error: MaxErrorOption = None,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Another model.")] = MODEL,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Number of turns of each engine.")
    ] = 8,
    allow_external_links: LinksFlag = False,
    import_limit: LimitOption = None,
) -> None:
    """Plan, compile, verify and time a model, and compare with ONNX Runtime and unmodified TVM."""
    from layoutsel.cli.activity import activity
    from layoutsel.cli.bench import bench_models, show_rows
    from layoutsel.cli.compile_model import build, show_compiled
    from layoutsel.cli.planner import options_of
    from layoutsel.planning.plan import Plan
    from layoutsel.report.plan_tables import lead_lines, plan_table

    with tempfile.TemporaryDirectory(prefix="layoutsel-demo-") as folder:
        artifact = Path(folder) / "demo.so"
        with activity() as shown:
            options = options_of(
                threads=threads,
                cache=cache,
                precision=precision,
                max_rel_error=max_rel_error,
                allow_external_links=allow_external_links,
                import_limit=import_limit,
            )
            compiled = build(model, options, shown)
            compiled.save(artifact)
        made = Plan.read(dict(compiled.plan), file="plan")
        terminal.show(plan_table(made), *lead_lines(made))
        show_compiled(compiled, "")
        rows, _ = bench_models(
            [model],
            peers=PEERS,
            threads=compiled.threads,
            rounds=rounds,
            artifact=artifact,
            precision=precision,
            allow_external_links=allow_external_links,
        )
    show_rows(rows)
