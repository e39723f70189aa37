"""Does NVIDIA's compiler take all that is generated for CUDA? Every candidate of a model, as PTX; no GPU is needed.

``python bench/cuda_code.py light:squeezenet … --json bench/results/cuda_code.json``. All sub-graphs take each of their candidates in
turn, transforms between their layouts included; all kernels of a model are compiled in one go for each architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
from script import run
from tvm import tirx
from tvm.target import Target

from layoutsel.benchmarking.cases import case_name
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from tvm_passes import cuda
from tvm_passes.backends import BACKENDS
from tvm_passes.rewrite_layouts import RewriteLayouts
from tvm_passes.targets import CrossTarget

ARCHITECTURES = ("sm_80", "sm_90")

KERNEL = "_kernel"
"""What TVM appends to a function's name for its first kernel."""


def machine(architecture: str) -> CrossTarget:
    """An x86 host with a GPU of that architecture."""
    limits = {"max_shared_memory_per_block": 49152, "max_threads_per_block": 1024}
    gpu = Target({"kind": "cuda", "arch": architecture, **limits})
    return CrossTarget(host=Target({"kind": "llvm", "num-cores": 8}), devices={"cuda": gpu})


def opened(model: object, architecture: str, precision: str = "auto") -> Session:
    """A session for such a machine, with the unit `cuda` alone."""
    return Session.open(
        model, units=["cuda"], precision=precision, threads=8, cross_target=machine(architecture)
    )


def kernels(session: Session) -> dict[str, tirx.PrimFunc]:
    """The kernels of all candidates, and of transforms between their layouts, by name."""
    offers = Offers.of(session)
    offered = {id_: found.decisions for id_, found in offers.candidates.items()}
    found: dict[str, tirx.PrimFunc] = {}
    with session.generating():
        lower = BACKENDS["cuda"].lower(session.cross_target.host)
        for turn in range(max(map(len, offered.values()))):
            decisions = {id_: these[turn % len(these)] for id_, these in offered.items()}
            module = lower(
                RewriteLayouts(decisions, devices=frozenset({"cuda"}))(session.functions.module)
            )
            found |= {
                gv.name_hint: code
                for gv, code in module.functions.items()
                if isinstance(code, tirx.PrimFunc)
            }
    return found


def ptx(codes: dict[str, tirx.PrimFunc], architecture: str) -> str:
    """What NVIDIA's compiler makes of the kernels, in one go."""
    target = Target(machine(architecture).devices["cuda"].export(), host="llvm")
    module = {name: code.with_attr("global_symbol", name) for name, code in codes.items()}
    with cuda.compiling():
        built = tvm.tirx.build(tvm.IRModule(module), target=target)
    (kernels_module,) = built.imports
    return str(kernels_module.inspect_source())


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """How many functions and kernels there are for each architecture."""
    for architecture in ARCHITECTURES:
        codes = kernels(opened(model, architecture))
        text = ptx(codes, architecture)
        assert all(f".entry {name}{KERNEL}" in text for name in codes)
        yield {
            "model": case_name(model),
            "architecture": architecture,
            "functions": len(codes),
            "kernels": text.count(".entry"),
            "on_tensor_cores": sum("tvm_mma_sync" in code.script() for code in codes.values()),
        }


if __name__ == "__main__":
    run(rows, __doc__)
