"""Ray on emulated nodes, and programs on the first one that have faults made for them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.nodes import FOLDER, EmulatedNode, Emulation, emulated
from layoutsel.cluster.joining import Joining
from layoutsel.cluster.ray_settings import PORT, Security, environment

JOIN_S = 120.0
"""Limit of the start of Ray on a node, seconds."""
STORE_BYTES = 200 << 20
"""Memory of a node for tensors on their way, bytes."""
INSECURE = Security(is_insecure=True)
"""The namespaces reach each other alone."""


def share_folders() -> None:
    """Make the folders of modules absolute: programs on nodes have other working folders."""
    folders = os.environ["PYTHONPATH"].split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(one).resolve()) for one in folders)


def join(emulation: Emulation, node: EmulatedNode) -> None:
    """Start Ray on a node; the first one is the head."""
    head = emulation.nodes[0]
    joining = Joining(
        node=node.name,
        own_address=node.address,
        head=None if node is head else f"{head.address}:{PORT}",
        threads=1,
        store_bytes=STORE_BYTES,
    )
    node.run(joining.command(), limit_s=JOIN_S)


@contextlib.contextmanager
def ray_nodes(**options: Any) -> Iterator[Emulation]:
    """Emulated nodes that have joined one cluster of Ray."""
    settings = {"XDG_CACHE_HOME": f"{FOLDER}/cache", "OMP_NUM_THREADS": "1"}
    with emulated(environment=environment(INSECURE, settings), **options) as emulation:
        for node in emulation.nodes:
            join(emulation, node)
        yield emulation


def acts(emulation: Emulation) -> dict[str, Callable[[], Any]]:
    """Faults and repairs that a program may ask for."""
    first, last = emulation.nodes[0], emulation.nodes[-1]
    return {
        f"kill worker {first.name}": lambda: first.kill("ray::SegmentActor"),
        f"kill worker {last.name}": lambda: last.kill("ray::SegmentActor"),
        "kill node": last.kill,
        "start node": lambda: join(emulation, last),
        "cut": lambda: emulation.tell("cut"),
        "heal": lambda: emulation.tell("heal"),
        "cpu": lambda: {node.name: sum(node.cpu_s().values()) for node in emulation.nodes},
        "stats": lambda: emulation.tell("stats"),
    }


@contextlib.contextmanager
def busy(node: EmulatedNode) -> Iterator[dict[str, Callable[[], Any]]]:
    """Acts that begin and end other work on a node."""
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        running.append(node.popen([sys.executable, "-c", "while True: pass"]))

    def end() -> None:
        while running:
            process = running.pop()
            process.kill()
            process.wait(10)

    try:
        yield {"load on": begin, "load off": end}
    finally:
        end()


def converse(
    node: EmulatedNode,
    arguments: Sequence[str | Path],
    answers: Mapping[str, Callable[[], Any]],
    limit_s: float,
) -> Any:
    """Run a program on a node, do what it asks for, and return its result.

    Its lines of JSON are ``{"ask": name}`` and, as the last one, ``{"result": …}``.
    """
    program = node.popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdin is not None
    assert program.stdout is not None
    end = time.monotonic() + limit_s
    try:
        for line in program.stdout:
            if time.monotonic() > end:
                raise TimeoutError(f"{arguments}: no result within {limit_s:g} s")
            if not line.startswith(b'{"'):
                continue  # Ray's own words
            said = json.loads(line)
            if "result" in said:
                return said["result"]
            name, _, value = said["ask"].partition("=")
            answer = answers[name](value) if value else answers[name]()
            program.stdin.write(json.dumps(answer).encode() + b"\n")
            program.stdin.flush()
        raise RuntimeError(f"{arguments}: it ended without a result")
    finally:
        program.kill()
        program.wait(10)
