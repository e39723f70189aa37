"""Two lanes whose kernels are functions of Python, on the plugin's runner of lanes.

The plugin records the kernels of a virtual machine, and repeats them without it. Here, stages of Python report
their kernels as a machine does, so that a test can delay, hold and break any of them.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm_ffi

from layoutsel.device.entry_points import EntryPoint
from layoutsel.device.signature import Signature
from layoutsel.device.tensors import empty_tensor
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.lane_chain import LaneChain
from layoutsel.exits.lanes import lanes_of
from layoutsel.exits.policy import Policy
from layoutsel.exits.verdict import AnswerRule
from tvm_passes.onednn.plugin import function

CLASSES = 3


def _floats(tensor: Any) -> Any:
    size = math.prod(tensor.shape)
    return (ctypes.c_float * size).from_address(tensor.data_ptr())


class PythonLanes:
    """A network of E exits that passes the number of a request on.

    Values of the classes are ``(number, exit, 0)``, and the predicted class is the number.

    Parameters
    ----------
    before
        Called with the name of a stage and the number of the request before each kernel.
    scores
        Score of an exit, by exit and number of the request.
    branches
        Worker of each early exit's branch: ``b``, or ``a`` for that of the trunk.
    kernels
        Number of kernels of each stage.
    read_input
        True if the branches read the input, too.
    sequence
        Answers requests while the branches' thread is late; None to wait for it.
    """

    threads = 1

    def __init__(
        self,
        before: Callable[[str, int], None] = lambda _stage, _number: None,
        scores: Callable[[int, int], float] = lambda _exit, _number: 0.0,
        *,
        branches: str = "bb",
        kernels: int = 3,
        limit_s: float = 30.0,
        cores: tuple[Sequence[int], Sequence[int]] = ((), ()),
        read_input: bool = False,
        sequence: Any = None,
    ) -> None:
        self._before, self._scores, self._kernels = before, scores, kernels
        self.early = len(branches)
        self._instrument = function("layoutsel.recording_instrument")()
        self._read_input = read_input
        self.entries = [self._entry(name) for name in self._names()]
        arrangement = Arrangement(trunk="a", branches=tuple(branches))
        lanes = lanes_of(self.entries, self.early + 1, arrangement)
        self.chain = LaneChain(lanes, self, self, cores, limit_s, sequence)  # type: ignore[arg-type]

    def answer(self, number: int, thresholds: Sequence[float | None], answer: str = "first") -> Any:
        """Answer a request."""
        policy = Policy(score="max_prob", thresholds=(*thresholds, None), patience=None)
        rule = AnswerRule(policy=policy, answer=answer)
        return self.chain.answer(rule, [np.full((1, 1), number, np.float32)])

    def chain_parts(self, entries: Sequence[EntryPoint]) -> tuple[list[Any], list[Any], list[Any]]:
        """Functions, recorded ones and weights: see :meth:`StageCaller.chain_parts`."""
        stages = [tvm_ffi.convert(self._stage(entry)) for entry in entries]
        return stages, stages, [tvm_ffi.convert([]) for _ in entries]

    def _names(self) -> list[str]:
        pairs = [(f"trunk{n}", f"branch{n}") for n in range(self.early)]
        return [*(name for pair in pairs for name in pair), f"trunk{self.early}"]

    def _entry(self, name: str) -> EntryPoint:
        kind, number = name[:-1], int(name[-1])
        tap = Signature(name=f"tap.{number}", shape=(1, 1), dtype="float32")
        given = Signature(name="input.0", shape=(1, 1), dtype="float32")
        results = tuple(
            Signature(name=f"output.{3 * number + place}", shape=shape, dtype=dtype)
            for place, (shape, dtype) in enumerate(
                [((1, CLASSES), "float32"), ((1,), "float32"), ((1,), "int64")]
            )
        )
        if kind == "branch":
            inputs = (given, tap) if self._read_input else (tap,)
            return EntryPoint(name=name, function=name, inputs=inputs, outputs=results)
        before = (
            given
            if number == 0
            else Signature(name=f"tap.{number - 1}", shape=(1, 1), dtype="float32")
        )
        outputs = results if number == self.early else (tap,)
        return EntryPoint(name=name, function=name, inputs=(before,), outputs=outputs)

    def _stage(self, entry: EntryPoint) -> Callable[..., Any]:
        made = [empty_tensor(one.shape, one.dtype) for one in entry.outputs]
        kernels = [
            tvm_ffi.convert(self._kernel(entry, last=n + 1 == self._kernels))
            for n in range(self._kernels)
        ]
        allocate = tvm_ffi.convert(lambda _size: None)

        def run(*arguments: Any) -> Any:
            *given, _weights = arguments
            for tensor in made:
                self._instrument(allocate, "vm.builtin.alloc_tensor", False, tensor, 0)
            for kernel in kernels:
                self._instrument(kernel, entry.name, True, None, *given, *made)
                kernel(*given, *made)
                self._instrument(kernel, entry.name, False, None, *given, *made)
            return made[0] if len(made) == 1 else made

        return run

    def _kernel(self, entry: EntryPoint, *, last: bool) -> Callable[..., None]:
        exit_ = int(entry.name[-1])

        def kernel(*tensors: Any) -> None:
            number = int(_floats(tensors[len(entry.inputs) - 1])[0])
            self._before(entry.name, number)
            if self._read_input and entry.name.startswith("branch"):
                assert _floats(tensors[0])[0] == number
            if not last:
                return
            made = tensors[len(entry.inputs) :]
            if len(made) == 1:
                _floats(made[0])[0] = number
                return
            _floats(made[0])[:] = (number, exit_, 0)
            _floats(made[1])[0] = self._scores(exit_, number)
            ctypes.c_int64.from_address(made[2].data_ptr()).value = number

        return kernel


def check(found, number, exits):
    """Check that an answer is that of one of some exits for the request of that number."""
    assert found is not None
    assert found.exit in exits
    assert found.values.tolist() == [[number, found.exit, 0]]
    assert found.label == number
