"""Records times of sub-graphs under loads, for the prices of loads.

``PYTHONPATH=bench python -m exits.record_loads prepare FOLDER`` compiles the candidates (minutes, on any machine at
work); ``… record FOLDER --output data/loads-NAME.jsonl.xz`` times them and needs a machine without other work.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path

from layoutsel.benchmarking.cases import case_name
from layoutsel.bundling.load_candidates import SUBGRAPHS, write_load_candidates
from layoutsel.bundling.load_recording import TURNS, record_loads, undisturbed
from layoutsel.cost.archive import write_archive
from layoutsel.cost.samples import Dataset
from layoutsel.device.archive import opened
from layoutsel.device.threads import available_threads

ROOT = Path(__file__).parents[2]
NETWORKS = (
    *(
        f"light:{name}"
        for name in ("squeezenet", "resnet50", "shufflenet", "inception_v1", "densenet121")
    ),
    *(str(ROOT / "tests" / "data" / "exits" / name) for name in ("mnist5k.onnx", "mnist1d.onnx")),
)
"""Networks from which sub-graphs are taken."""


def prepare(arguments: argparse.Namespace) -> None:
    """Compile the candidates of every network for one thread and for all cores."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for network in arguments.networks:
        for threads in sorted({1, available_threads()}):
            path = arguments.folder / f"{case_name(network)}-{threads}.bundle"
            if not path.exists():
                chosen = write_load_candidates(network, threads, path, arguments.subgraphs)
                print(f"{path.name}: {len(chosen)} candidates", flush=True)


def record(arguments: argparse.Namespace) -> None:
    """Time the prepared candidates, and write the samples."""
    started_s = time.monotonic()
    with ExitStack() as stack:
        bundles = [
            stack.enter_context(opened(path)) for path in sorted(arguments.folder.glob("*.bundle"))
        ]
        samples = record_loads(
            bundles,
            budget_s=arguments.budget,
            turns=arguments.turns,
            on_turn=lambda turn, name, seconds: print(
                f"turn {turn + 1}: {name}: {seconds:.1f} s", flush=True
            ),
        )
    kept = undisturbed(samples)
    write_archive(Dataset(loaded=kept), arguments.output)
    print(
        f"{len(kept)} of {len(samples)} samples in {time.monotonic() - started_s:.0f} s: {arguments.output}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prepare")
    command.add_argument("folder", type=Path)
    command.add_argument("networks", nargs="*", default=NETWORKS)
    command.add_argument("--subgraphs", type=int, default=SUBGRAPHS)
    command.set_defaults(function=prepare)
    command = commands.add_parser("record")
    command.add_argument("folder", type=Path)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--budget", type=float, default=300.0, help="seconds")
    command.add_argument("--turns", type=int, default=TURNS)
    command.set_defaults(function=record)
    asked = parser.parse_args()
    asked.function(asked)
