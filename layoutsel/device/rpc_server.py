"""Server of a model on a small device: segments of stages over TVM's RPC, one session at a time.

TVM's RPC lets its client load code, so the server listens on the loopback interface only. A gateway
on another machine reaches it through a tunnel, such as ``ssh -L 9090:localhost:9090 device``.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm_ffi

from layoutsel.device.archive import sha256
from layoutsel.device.model import Model
from layoutsel.device.model import load as load_model
from layoutsel.device.tensors import bytes_of, nbytes_of, tensor_of
from tvm_passes.errors import LayoutselError
from tvm_passes.isa import cpu_flags
from tvm_passes.runtime_library import load_tvm_runtime, runtime_version

DESCRIBE, RUN = "layoutsel.rpc.describe", "layoutsel.rpc.run"
"""Functions of a session: facts about the model, and a run of stages."""
ERROR = "error"
"""Key of the message in an answer without results."""
KEY = "layoutsel"
"""Key that clients must state."""
LOOPBACK = "127.0.0.1"
"""Only interface of the server."""
_MAGIC = 0xFF271
"""First number of TVM's RPC; also its code of success."""
_MISMATCH = _MAGIC + 2
"""TVM's code for a wrong key."""
_NUMBER = struct.Struct("<i")
"""Encoding of numbers in TVM's greeting."""
_GREETING_S = 5.0
"""Time limit of a client's greeting, seconds."""
_MOST_KEY = 256
"""Largest length of a key, bytes."""
_SILENT_S, _PROBES = 30, 4
"""Time after which a silent client is probed, seconds, and unanswered probes that end a session."""


class SegmentServer:
    """Serves the stages of one model.

    Parameters
    ----------
    path
        Artifact, or bundle that deploys a model.
    port
        Port on the loopback interface; 0 for a free one.
    threads
        Number of threads.
    limit_s
        Time limit of a run, seconds.

    Raises
    ------
    ArtifactError, BundleError, UnitUnavailable
        If the model cannot be loaded here.
    LayoutselError
        If the port is taken.
    """

    def __init__(self, path: Path, port: int, *, threads: int, limit_s: float) -> None:
        load_tvm_runtime()
        self._loop = tvm_ffi.get_global_func("rpc.ServerLoop")
        self._model = load_model(path, verify=True)
        self._facts = _facts(path, self._model)
        self._worker = self._model.worker(threads=threads, limit_s=limit_s)
        self._limit_s = limit_s
        self._socket = _listening(port)
        self.port: int = self._socket.getsockname()[1]
        tvm_ffi.register_global_func(DESCRIBE, lambda: self._facts, override=True)
        tvm_ffi.register_global_func(RUN, self._answer, override=True)

    def serve(self, on_session: Callable[[str], None] = lambda _what: None) -> None:
        """Serve sessions, one after the other, until the process ends.

        Parameters
        ----------
        on_session
            Called with a message at the begin and the end of each session.
        """
        while True:
            connection, address = self._socket.accept()
            if not _greeted(connection):
                connection.close()
                on_session(f"refused {address[0]}:{address[1]}: no client of this server")
                continue
            on_session(f"session of {address[0]}:{address[1]} begins")
            try:
                self._loop(connection.detach())  # TVM closes it
            except Exception as error:  # TVM raises anything when a client breaks off
                on_session(f"session fails: {_last_line(error)}")
            else:
                on_session("session ends")

    def close(self) -> None:
        """Stop listening, and end the threads."""
        self._socket.close()
        self._worker.close(cancel=True)

    def _answer(self, request: str, data: bytes) -> bytes:
        """Answer a request: results as :func:`packed` has them, or the message of an error."""
        try:
            return self._run(json.loads(request), data)
        except Exception as error:  # an answer tells the client that the session goes on
            return _headed({ERROR: str(error).strip() or type(error).__name__})

    def _run(self, asked: Mapping[str, Any], data: bytes) -> bytes:
        tensors = unpacked(asked["tensors"], bytes(data))
        chain = self._worker.chain(asked["stages"])
        given = []
        for one in chain.inputs:
            got = tensors.get(one.name)
            found = got and (str(got.dtype), tuple(map(int, got.shape)))
            if got is None or found != (one.dtype, one.shape):
                raise LayoutselError(
                    f"stages {chain.name}: input {one.name}: got {found or 'nothing'}; "
                    f"expected {one.dtype} of shape {one.shape}"
                )
            given.append(got)
        # The worker has the same limit; this one is for a limit that it does not notice.
        results = self._worker.start(asked["stages"], given).result(2 * self._limit_s)
        names = [one.name for one in chain.outputs]
        return packed(names, results)


def packed(names: Sequence[str], tensors: Sequence[tvm_ffi.Tensor]) -> bytes:
    """Pack tensors: the length of a JSON list of names, shapes and types, the list, the values."""
    entries = [
        {"name": name, "shape": list(map(int, one.shape)), "dtype": str(one.dtype)}
        for name, one in zip(names, tensors, strict=True)
    ]
    return b"".join([_headed(entries), *map(bytes_of, tensors)])


def _headed(document: Any) -> bytes:
    head = json.dumps(document).encode()
    return _NUMBER.pack(len(head)) + head


def unpacked(entries: Sequence[Any], data: bytes) -> dict[str, tvm_ffi.Tensor]:
    """Make tensors by name of a list of names, shapes and types, and their values."""
    found, start = {}, 0
    for entry in entries:
        end = start + nbytes_of(entry["shape"], entry["dtype"])
        found[entry["name"]] = tensor_of(data[start:end], entry["shape"], entry["dtype"])
        start = end
    if start != len(data):
        raise LayoutselError(f"got {len(data):,} bytes of tensors; expected {start:,}")
    return found


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1]


def _facts(path: Path, model: Model) -> str:
    return json.dumps(
        {
            "sha256": sha256(path),
            "stages": [stage.to_json() for stage in model.stages],
            "threads": model.threads,
            "features": sorted(cpu_flags()),
            "versions": {"apache-tvm": runtime_version(), "apache-tvm-ffi": tvm_ffi.__version__},
        }
    )


def _listening(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
    except OSError as error:
        listening.close()
        raise LayoutselError(
            f"cannot listen on {LOOPBACK}:{port}: {error.strerror}; choose another port"
        ) from error
    listening.listen(1)
    return listening


def _greeted(connection: socket.socket) -> bool:
    """Answer the greeting of TVM's RPC; False if it is another protocol or key."""
    connection.settimeout(_GREETING_S)
    with contextlib.suppress(OSError):
        if _received(connection) != _MAGIC:
            return False
        length = _received(connection)
        key = _bytes(connection, length) if 0 <= length <= _MOST_KEY else b""
        is_known = key.split()[:1] == [f"client:{KEY}".encode()]
        connection.sendall(_NUMBER.pack(_MAGIC if is_known else _MISMATCH))
        if is_known:
            name = f"server:{KEY}".encode()
            connection.sendall(_NUMBER.pack(len(name)) + name)
            connection.settimeout(None)
            _probe_when_silent(connection)
        return is_known
    return False


def _probe_when_silent(connection: socket.socket) -> None:
    """End the session of a client that vanished without closing it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _SILENT_S),
        (socket.TCP_KEEPINTVL, _SILENT_S // _PROBES),
        (socket.TCP_KEEPCNT, _PROBES),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _received(connection: socket.socket) -> int:
    return int(_NUMBER.unpack(_bytes(connection, _NUMBER.size))[0])


def _bytes(connection: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        parts.append(connection.recv(count))
        if not parts[-1]:
            raise OSError("the client closed the connection")
        count -= len(parts[-1])
    return b"".join(parts)
