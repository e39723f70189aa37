"""A link between network namespaces with delay and rate, in user space: the kernel here has no netem.

Run as a program by :mod:`cluster.nodes`: ``relay.py NAMESPACE=ADDRESS...``. Every namespace gets a TUN device; packets
between two of them wait for their turn on the link and for the delay. Commands come on standard input, one a line:
``link GBPS DELAY_MS`` (0 Gbit/s: no limit), ``cut``, ``heal``, ``stats``; the answer to each is one line of JSON. The end
of the input ends the relay.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MTU = 9000
"""Size of a packet: with Ethernet's 1500 bytes, the relay's own processor time would be eight times as much."""
QUEUE_BYTES = 4 << 20
"""Packets that wait for a link; further ones are dropped, as a switch does."""
SOURCE, DESTINATION = slice(12, 16), slice(16, 20)
"""Places of the addresses in an IPv4 header."""


def tun(name: str) -> int:
    """A TUN device; closing the file removes it."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


def moved(namespace: str, address: str) -> int:
    """A TUN device inside a namespace, with an address there."""
    name = f"ls{os.getpid() % 100000}"
    file = tun(name)
    inside = ["ip", "-n", namespace]
    for command in (
        ["ip", "link", "set", name, "netns", namespace],
        [*inside, "link", "set", name, "name", "tun0", "mtu", str(MTU), "txqueuelen", "1000"],
        [*inside, "address", "add", f"{address}/24", "dev", "tun0"],
        [*inside, "link", "set", "tun0", "up"],
        [*inside, "link", "set", "lo", "up"],
    ):
        subprocess.run(command, check=True, timeout=20)
    return file


class Relay:
    """Packets on their way between namespaces."""

    def __init__(self, ends: Mapping[str, str]) -> None:
        self.files = {
            socket.inet_aton(address): moved(name, address) for name, address in ends.items()
        }
        self.gbps, self.delay_s, self.is_cut = 0.0, 0.0, False
        self.bytes = self.dropped = 0
        self._due: list[tuple[float, int, bytes, int]] = []
        self._free: dict[bytes, float] = {}
        self._number = itertools.count()

    def take(self, file: int) -> None:
        """Read the packets of one namespace, and send each on its way."""
        for _ in range(64):  # then those of the others
            try:
                packet = os.read(file, MTU + 100)
            except BlockingIOError:
                return
            to = self.files.get(packet[DESTINATION])
            if to is not None and packet[0] >> 4 == 4:
                self._send(packet, to)

    def _send(self, packet: bytes, to: int) -> None:
        now = time.monotonic()
        ends = packet[SOURCE] + packet[DESTINATION]
        start = max(now, self._free.get(ends, 0.0))
        per_byte_s = 8e-9 / self.gbps if self.gbps else 0.0
        if self.is_cut or (start - now) > per_byte_s * QUEUE_BYTES:
            self.dropped += 1
            return
        self._free[ends] = start + len(packet) * per_byte_s
        self.bytes += len(packet)
        heapq.heappush(self._due, (self._free[ends] + self.delay_s, next(self._number), packet, to))

    def deliver(self) -> float:
        """Hand over the packets that are due; returns the seconds until the next one."""
        while self._due:
            wait_s = self._due[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            _, _, packet, to = heapq.heappop(self._due)
            if not self.is_cut:
                try:
                    os.write(to, packet)
                except OSError:  # its queue is full, or the device is down
                    self.dropped += 1
        return 60.0

    def obey(self, line: str) -> dict[str, float]:
        """Answer a command."""
        word, *rest = line.split()
        if word == "link":
            self.gbps, self.delay_s = float(rest[0]), float(rest[1]) / 1e3
        elif word in ("cut", "heal"):
            self.is_cut = word == "cut"
        elif word != "stats":
            raise SystemExit(f"relay: unknown command {line!r}")
        return {"cpu_s": time.process_time(), "bytes": self.bytes, "dropped": self.dropped}

    def run(self) -> None:
        """Relay until the input ends."""
        wait_s, commands = 60.0, sys.stdin.fileno()
        while True:
            ready, _, _ = select.select([*self.files.values(), commands], [], [], wait_s)
            for file in ready:
                if file != commands:
                    self.take(file)
                    continue
                line = sys.stdin.readline()
                if not line:
                    return
                print(json.dumps(self.obey(line)), flush=True)
            wait_s = self.deliver()


if __name__ == "__main__":
    relay = Relay(dict(one.split("=") for one in sys.argv[1:]))
    print(json.dumps(relay.obey("stats")), flush=True)
    relay.run()
