"""Processes of Python that need not import TVM: copies of one that has, as starting one takes a second or two.

In all else they are processes of their own, with their own standard streams, environment and working directory. They
import the modules of this package themselves, and end as any process of Python does.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

SERVER = Path(__file__).with_name("prepared_server.py")
START_S = 120.0
"""Time limit of the server's imports, and of a copy's start, seconds."""
READ_EARLY = ("GOMP_", "LD_", "MALLOC_", "OMP_", "OPENBLAS_", "PYTHON", "TVM_")
"""Beginnings of variables that a process reads before it runs a program, or while it imports TVM."""


def run_python(
    *arguments: object, limit_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Do as ``python ARGUMENTS``, which begin with ``-c`` or ``-m``, with further variables.

    A process with other variables of :data:`READ_EARLY`, PYTHONPATH excepted, starts as usual.
    """
    given, all_ = list(map(str, arguments)), {**os.environ, **(environment or {})}
    early = {name for name in environment or {} if name.startswith(READ_EARLY)} - {"PYTHONPATH"}
    if any(all_[name] != os.environ.get(name) for name in early):
        command = [sys.executable, *given]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, env=all_, check=False
        )
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
        Path(os.devnull).open() as nothing,
    ):
        code = _run((given, all_, str(Path.cwd())), (nothing, out, errors), limit_s)
        texts = []
        for stream in (out, errors):
            stream.seek(0)
            texts.append(stream.read().decode())
    return subprocess.CompletedProcess(given, code, *texts)


def _run(request: tuple, streams: tuple, limit_s: float) -> int:
    """Run a request with standard streams; its exit code."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            files = [*(stream.fileno() for stream in streams), theirs.fileno()]
            socket.send_fds(_server(), [pickle.dumps(request)], files)
        ours.settimeout(START_S)
        (process,) = struct.unpack("i", ours.recv(4))
        ours.settimeout(limit_s)
        try:
            (code,) = struct.unpack("i", ours.recv(4))
        except TimeoutError:
            os.kill(process, signal.SIGKILL)
            raise subprocess.TimeoutExpired(request[0], limit_s) from None
    return code


@functools.cache
def _server() -> socket.socket:
    """Socket of a server, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        command = [sys.executable, SERVER, str(number)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[number]
        )

    def end() -> None:
        ours.close()
        process.wait(60)

    atexit.register(end)
    ours.settimeout(START_S)
    assert ours.recv(1), "the server of prepared processes ended while it imported TVM"
    ours.settimeout(None)
    return ours
