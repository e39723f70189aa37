"""Fast import of TVM's tensor intrinsics."""

from __future__ import annotations

import importlib
import inspect
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any
from unittest import mock


def import_intrinsics() -> None:
    """Import the intrinsics that every tuning context needs.

    TVM inspects the whole call stack for each of 500 functions that it parses during this import.
    Python compares every frame with every module for that, which takes 25 s. Here each file is
    looked up once.
    """
    known: dict[tuple[str, str | None], ModuleType | None] = {}
    search = inspect.getmodule

    def remembered(thing: Any, file: str | None = None) -> ModuleType | None:
        if isinstance(thing, TracebackType):
            thing = thing.tb_frame
        code = thing.f_code if isinstance(thing, FrameType) else thing
        if not isinstance(code, CodeType):
            return search(thing, file)
        key = (code.co_filename, file)
        if key not in known:
            known[key] = search(thing, file)
        return known[key]

    with mock.patch.object(inspect, "getmodule", remembered):
        importlib.import_module("tvm.s_tir.tensor_intrin")
