"""Gateway to a small device: runs segments on a device that serves TVM's RPC.

The device runs ``layoutsel-measure serve MODEL --rpc PORT``, of the kit for devices. Its server
listens on the device's loopback interface; the gateway reaches it directly or through a tunnel.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Overdue
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from layoutsel.cluster.crossing import sent
from layoutsel.device.entry_points import EntryPoint, StageChain
from layoutsel.device.rpc_server import DESCRIBE, ERROR, KEY, RUN
from layoutsel.errors import RunTimeout
from layoutsel.runtime.arrays import dtype_of
from layoutsel.runtime.binding import bind
from tvm_passes.errors import LayoutselError

_NUMBER = struct.Struct("<i")
"""Length of the list of results."""
_CONNECT_S = 10.0
"""Time limit of connecting, seconds."""


class DeviceLost(LayoutselError):
    """A device that does not answer its gateway."""


@dataclass(frozen=True)
class RpcAddress:
    """Address of a device's server, or of this end of a tunnel to it."""

    port: int
    """Port."""
    host: str = "127.0.0.1"
    """Address of the loopback interface."""

    def __post_init__(self) -> None:
        if self.host != "localhost" and not _is_loopback(self.host):
            raise LayoutselError(
                f"device at {self.host}:{self.port}: expected an address of this machine, as TVM's "
                f"RPC runs any code that its client sends. Open a tunnel, such as "
                f"'ssh -L {self.port}:localhost:{self.port} {self.host}', and use localhost"
            )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class RpcDevice:
    """Stages of a model on a device; calls are safe from any thread and run one after the other.

    Parameters
    ----------
    address
        Address of the device's server.
    sha256
        Digest of the artifact that the device must have loaded; None for any.
    limit_s
        Time limit of a run with its transfers, seconds.

    Raises
    ------
    DeviceLost
        If no server answers.
    LayoutselError
        If the device has loaded another artifact.
    """

    def __init__(
        self, address: RpcAddress, *, sha256: str | None = None, limit_s: float = 60.0
    ) -> None:
        self._address, self._limit_s = address, limit_s
        # TVM's client cannot be interrupted: an overdue call keeps its thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="layoutsel-rpc")
        self._is_lost = False
        session, facts = self._within(self._thread.submit(self._connect), _CONNECT_S)
        self._remote = session.get_function(RUN)
        self.facts: Mapping[str, Any] = json.loads(facts)
        if sha256 not in (None, self.facts["sha256"]):
            raise LayoutselError(
                f"device at {address}: its artifact has the SHA-256 {self.facts['sha256']}; "
                f"expected {sha256}: copy the announced artifact to it, and start it again"
            )

    @cached_property
    def stages(self) -> tuple[EntryPoint, ...]:
        """Stages of the device's model, in order."""
        return tuple(EntryPoint.read(entry, 0) for entry in self.facts["stages"])

    def chain(self, stages: Sequence[str]) -> StageChain:
        """Describe what a run of `stages` takes and returns."""
        return StageChain.named(self.stages, stages)

    def run(
        self, stages: Sequence[str], inputs: Mapping[str, np.ndarray]
    ) -> Future[dict[str, np.ndarray]]:
        """Queue a run of stages and return at once.

        Parameters
        ----------
        stages
            Names of stages in the model's order, which run as one.
        inputs
            Arrays by the names of their inputs, in the layouts of the device's plan.

        Returns
        -------
        Future
            Arrays by the names of their outputs.

        Raises
        ------
        InputError
            If an input is missing, or has another shape or element type.
        DeviceLost
            If the device did not answer before.
        """
        if self._is_lost:
            raise self._lost("it did not answer before")
        chain = self.chain(stages)
        wanted = {one.name: inputs[one.name] for one in chain.inputs if one.name in inputs}
        arrays = bind(chain.inputs, (), wanted)
        return self._thread.submit(self._call, chain, arrays)

    def result(self, run: Future[Any]) -> Any:
        """Wait for a run.

        Raises
        ------
        RunTimeout
            If it exceeds the time limit; the device then counts as lost.
        DeviceLost
            If the connection broke.
        LayoutselError
            If the device reports an error.
        """
        return self._within(run, self._limit_s)

    def close(self) -> None:
        """End the session; a call that has not ended is abandoned."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._remote = None

    def _connect(self) -> tuple[Any, str]:
        from tvm import rpc

        try:
            session = rpc.connect(self._address.host, self._address.port, KEY)
            return session, str(session.get_function(DESCRIBE)())
        except Exception as error:  # TVM raises anything
            raise self._lost(_first_line(error)) from error

    def _call(self, chain: StageChain, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        tensors = [
            {"name": one.name, "shape": list(one.shape), "dtype": one.dtype} for one in chain.inputs
        ]
        request = json.dumps({"stages": chain.names, "tensors": tensors})
        data = bytearray().join(map(sent, arrays))
        try:
            answer = memoryview(bytes(self._remote(request, data)))
        except Exception as error:
            self._is_lost = True
            raise self._lost(_first_line(error)) from error
        return self._results(answer)

    def _within(self, run: Future[Any], limit_s: float) -> Any:
        try:
            return run.result(limit_s)
        except Overdue:
            self._is_lost = True
            raise RunTimeout(
                f"device at {self._address}: no answer within {limit_s:g} s; it counts as lost: "
                "restart its server, or set a longer limit"
            ) from None

    def _results(self, answer: memoryview) -> dict[str, np.ndarray]:
        (length,) = _NUMBER.unpack(answer[: _NUMBER.size])
        start = _NUMBER.size + length
        entries = json.loads(bytes(answer[_NUMBER.size : start]))
        if ERROR in entries:
            raise LayoutselError(f"device at {self._address}: {entries[ERROR]}")
        found = {}
        for entry in entries:
            dtype = dtype_of(entry["dtype"])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            values = np.frombuffer(answer, dtype, count, start)
            found[entry["name"]] = values.reshape(entry["shape"]).copy()
            start += values.nbytes
        return found

    def _lost(self, why: str) -> DeviceLost:
        return DeviceLost(
            f"device at {self._address} is lost: {why}. Start 'layoutsel-measure serve MODEL --rpc "
            f"{self._address.port}' on it, and the tunnel to it"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
