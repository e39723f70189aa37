"""CUDA source to PTX within limits: a copy of this process compiles, so that it can be ended.

NVRTC is native code in the process, and TVM waits for ``nvcc`` without end. A driver does not
outlive a fork, but a compiler needs none.
"""

from __future__ import annotations

import logging
from multiprocessing.connection import Connection
from typing import Any

from layoutsel.device.forked import CopyFailed, Forked, Limits, Stuck
from layoutsel.device.outcome import FailureKind
from tvm_passes import cuda
from tvm_passes.errors import BuildError

logger = logging.getLogger(__name__)

LIMITS = Limits(time_s=600.0, memory_bytes=8 << 30)
"""Limits of compiling the kernels of one module, and of each process of ``nvcc``."""


def to_ptx(source: str, target: Any) -> str:
    """Compile CUDA source to PTX as :func:`tvm_passes.cuda.to_ptx` does, within :data:`LIMITS`.

    Raises
    ------
    BuildError
        If the compiler fails, or exceeds a limit.
    """

    def work(connection: Connection) -> None:
        connection.send(cuda.to_ptx(source, target))

    try:
        with Forked(work, LIMITS) as child:
            return str(child.receive())
    except Stuck as error:
        logger.warning(
            "CUDA's source is compiled in this process: %s; nothing limits its time and memory",
            error,
        )
        return cuda.to_ptx(source, target)
    except CopyFailed as error:
        advice = _ADVICE.get(error.failure.kind, "Plan without 'cuda', or with another compiler")
        raise BuildError(
            f"CUDA's source of {len(source)} characters cannot be compiled for "
            f"{target.attrs['arch']}: {error.failure.reason}. {advice}"
        ) from error


_ADVICE = {
    FailureKind.TIMEOUT: "Pin the sub-graphs with the largest kernels to another unit",
    FailureKind.ENVIRONMENT: "Give the process more memory, or close others",
}
"""Advice by kind of failure."""
