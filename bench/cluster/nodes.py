"""Emulated nodes on this machine: a network namespace, a private /dev/shm and /tmp/ray, and a core each.

Emulated: one memory bus, one cache and one kernel serve both nodes. Without root or namespaces, :func:`why_not` says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cluster.memories import MemoryGroup

RELAY = Path(__file__).with_name("relay.py")
FOLDER = "/tmp/ray"
"""Folder of Ray's sessions, private to each node."""
PRIVATE = (
    f"mkdir -p {FOLDER} && mount -t tmpfs none {FOLDER} && mount -t tmpfs -o size=%s none /dev/shm"
)
"""Memory for the objects and folder for the sessions of one node: with shared ones, two nodes would share objects."""
UNSHARED = ("unshare", "-m", "--propagation", "private", "--pid", "--kill-child", "--mount-proc")
"""Folders and process numbers of a node's own: all its processes end with the first one."""
BOUND = ("setpriv", "--pdeathsig", "KILL")
"""The first process ends with this program, even if that is killed."""
START_S = 60.0
"""Limit of the start of a node, seconds."""


def why_not() -> str | None:
    """Reason why nodes cannot be emulated here; None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "the kernel has no TUN device"
    name = f"try{os.getpid()}"
    made = subprocess.run(
        ["ip", "netns", "add", name], capture_output=True, check=False, timeout=20
    )
    if made.returncode:
        return f"no network namespaces: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=False, timeout=20)
    return None


@dataclass
class EmulatedNode:
    """A node: a process that holds its namespaces, in which others are started."""

    name: str
    address: str
    core: int
    holder: subprocess.Popen[bytes]
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: MemoryGroup | None = None
    """Limit on the memory of all programs on this node; None without one."""

    @property
    def first(self) -> int:
        """First process inside the namespaces."""
        (child,) = psutil.Process(self.holder.pid).children()
        return child.pid

    def command(self, arguments: Sequence[str | Path]) -> list[str]:
        """Command line that runs a program on this node."""
        inside = ["nsenter", "-t", str(self.first), "-m", "-n", "-p"]
        command = [*inside, "taskset", "-c", str(self.core), *map(str, arguments)]
        return command if self.memory is None else self.memory.command(command)

    def popen(self, arguments: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program on this node."""
        environment = {**os.environ, **self.environment}
        return subprocess.Popen(self.command(arguments), env=environment, **options)

    def run(self, arguments: Sequence[str | Path], limit_s: float = START_S) -> str:
        """Run a program on this node and return its output."""
        done = subprocess.run(
            self.command(arguments),
            env={**os.environ, **self.environment},
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{arguments}: {(done.stderr or done.stdout).decode()[-2000:]}")
        return done.stdout.decode()

    def processes(self) -> list[psutil.Process]:
        """Processes of this node: those in its network namespace."""
        home = Path(f"/proc/{self.holder.pid}/ns/net").readlink()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if Path(f"/proc/{process.pid}/ns/net").readlink() == home:
                    found.append(process)
        return found

    def cpu_s(self) -> dict[str, float]:
        """Processor time of the node's processes so far, seconds, by name."""
        used: dict[str, float] = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[process.name()] = used.get(process.name(), 0.0) + times.user + times.system
        return used

    def kill(self, word: str = "") -> int:
        """``kill -9`` of the node's processes whose command line holds `word`; returns their number.

        Those of an empty word are all but the holder of the namespaces.
        """
        killed, kept = 0, (self.holder.pid, self.first)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.pid not in kept and word in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    killed += 1
        return killed


@dataclass
class Emulation:
    """Nodes and the relay between them."""

    nodes: tuple[EmulatedNode, ...]
    relay: subprocess.Popen[bytes]

    def tell(self, command: str) -> dict[str, float]:
        """Give the relay a command and return its statistics."""
        assert self.relay.stdin is not None
        assert self.relay.stdout is not None
        self.relay.stdin.write(command.encode() + b"\n")
        self.relay.stdin.flush()
        return json.loads(self.relay.stdout.readline())


@contextlib.contextmanager
def emulated(
    names: Sequence[str] = ("edge", "srv"),
    *,
    gbps: float = 1.0,
    delay_ms: float = 0.1,
    shm: str = "1g",
    environment: Mapping[str, str] | None = None,
    memory_bytes: int | None = None,
) -> Iterator[Emulation]:
    """Nodes for the time of the block; all their processes end with it."""
    number = os.getpid() % 200
    addresses = {
        name: f"10.{77 + number // 100}.{number % 100 + 1}.{i}" for i, name in enumerate(names, 1)
    }
    spaces = {name: f"ls-{os.getpid()}-{name}" for name in names}
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        nodes = []
        for index, name in enumerate(names):
            subprocess.run(["ip", "netns", "add", spaces[name]], check=True, timeout=20)
            stack.callback(
                subprocess.run, ["ip", "netns", "delete", spaces[name]], check=False, timeout=20
            )
            script = f"{PRIVATE % shm} && echo ready && exec sleep infinity"
            holder = subprocess.Popen(
                [*BOUND, "ip", "netns", "exec", spaces[name], *UNSHARED, "sh", "-c", script],
                stdout=subprocess.PIPE,
            )
            memory = memory_bytes and MemoryGroup.limited(spaces[name], memory_bytes)
            core = cores[index % len(cores)]
            node = EmulatedNode(
                name, addresses[name], core, holder, environment or {}, memory or None
            )
            stack.callback(_end, node)
            assert holder.stdout is not None
            if holder.stdout.readline() != b"ready\n":
                raise RuntimeError(f"no private folders for {name}")
            nodes.append(node)
        ends = [f"{spaces[name]}={addresses[name]}" for name in names]
        relay = subprocess.Popen(
            [sys.executable, str(RELAY), *ends], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stack.callback(_stop, relay)
        emulation = Emulation(tuple(nodes), relay)
        assert relay.stdout is not None
        if not relay.stdout.readline():
            raise RuntimeError("the relay did not start")
        emulation.tell(f"link {gbps} {delay_ms}")
        yield emulation


def _end(node: EmulatedNode) -> None:
    """End all processes of a node: the kernel ends them with the first one."""
    node.holder.kill()
    node.holder.wait(5)
    if node.memory is not None:
        node.memory.remove()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
