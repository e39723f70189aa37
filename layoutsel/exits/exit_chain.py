"""Stages of one worker until an exit is sure, as one call of the plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm_ffi

from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.threads import shares_openmp
from layoutsel.exits.lanes import Lanes
from tvm_passes.onednn.plugin import function


def exit_chain(lanes: Lanes, caller: StageCaller) -> Callable[..., Any] | None:
    """Make the plugin's function of a single lane: see ``cmake/onednn/exit_chain.h``.

    None without the plugin, or if the stages complete the exits in another order.

    Parameters
    ----------
    lanes
        Stages of one worker.
    caller
        Runs the stages; the function is to be called within its :meth:`StageCaller.run` alone.
    """
    (lane,) = lanes.lanes
    order = tuple(exit_ for step in lane.steps for exit_ in step.exits)
    if not shares_openmp() or order != lanes.exits or not lane.steps[-1].exits:
        return None
    parts = [caller.parts(entry) for step in lane.steps for entry in step.chain.entries]
    tests = [[n for e in step.exits for n in (e, *lanes.results[e])] for step in lane.steps]
    found: Callable[..., Any] = function("layoutsel.exit_chain")(
        [code for code, _ in parts],
        [weights for _, weights in parts],
        [tvm_ffi.Shape(step.reads) for step in lane.steps],
        [tvm_ffi.Shape(step.writes) for step in lane.steps],
        [tvm_ffi.Shape(step.frees) for step in lane.steps],
        [tvm_ffi.Shape(tuple(one)) for one in tests],
        lanes.tensors,
    )
    return found
