"""Machines that become nodes of a cluster of Ray."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from layoutsel.cluster.heads import check_head
from layoutsel.cluster.ray_settings import PORT, RESOURCE, Security, environment
from tvm_passes.errors import LayoutselError

JOIN_S = 90.0
"""Time limit of the start of a node, seconds."""


@dataclass(frozen=True, kw_only=True)
class Joining:
    """A machine that becomes a node."""

    node: str
    """Id of the node in the topology."""
    own_address: str
    """Address of this machine, which other nodes reach."""
    head: str | None = None
    """Address of the head with its port; None to become the head."""
    port: int = PORT
    """Port, if this is the head."""
    threads: int
    """Number of threads of segments."""
    store_bytes: int
    """Memory for tensors on their way, bytes."""

    def command(self) -> list[str]:
        """``ray start`` with all options."""
        place = (
            [f"--address={self.head}"]
            if self.head is not None
            else ["--head", f"--port={self.port}", "--include-dashboard=false"]
        )
        # A driver that computes nothing shares the origin with a segment: one processor more.
        return [
            str(Path(sys.executable).with_name("ray")),
            "start",
            *place,
            f"--node-ip-address={self.own_address}",
            f"--num-cpus={self.threads}",
            f"--resources={json.dumps({RESOURCE + self.node: 1})}",
            f"--object-store-memory={self.store_bytes}",
            "--disable-usage-stats",
        ]


def way_to(address: str) -> str:
    """Address of this machine from which packets to `address` leave."""
    host, _, port = address.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect((host or address, int(port) if host else PORT))  # it sends nothing
            return str(one.getsockname()[0])
    except (OSError, ValueError) as error:
        raise LayoutselError(
            f"--address {address}: {error}; expected HOST:PORT of the head"
        ) from error


def join_cluster(joining: Joining, security: Security) -> None:
    """Start Ray on this machine; its processes go on in the background.

    Raises
    ------
    LayoutselError
        If Ray is not installed, cannot be started, or does not reach the head.
    """
    command = joining.command()
    if not Path(command[0]).exists():
        raise LayoutselError(
            f"there is no {command[0]}: install Ray with pip install 'layoutsel[cluster]'"
        )
    if joining.head is not None:
        check_head(joining.head, security)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(security),
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=JOIN_S)
    except subprocess.TimeoutExpired:
        _end(process)
        raise LayoutselError(
            f"node {joining.node!r} cannot join: no answer within {JOIN_S:g} s; expected a head at "
            f"{joining.head or joining.own_address} with the same token and TLS files"
        ) from None
    if process.returncode:
        _end(process)
        lines = [line.strip() for line in printed.decode(errors="replace").splitlines()]
        why = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "")
        raise LayoutselError(f"node {joining.node!r} cannot join: {why[:300]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what a failed start has left: after a successful one, the group goes on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
