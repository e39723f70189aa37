"""All of a model's candidates on CUDA, as one module of kernels, and what NVIDIA's compiler makes of it. No GPU is needed.

``python tests/gpu/cuda_code.py light:squeezenet ...`` compiles models for each architecture and tells how many kernels there are.
"""

from __future__ import annotations

import shutil
import sys

import pytest
import tvm
from tvm import tirx
from tvm.target import Target

from layoutsel.session import Session
from tvm_passes import cuda
from tvm_passes.backends import BACKENDS
from tvm_passes.rewrite_layouts import RewriteLayouts
from tvm_passes.targets import Elsewhere

ARCHITECTURES = ("sm_80", "sm_90")

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")


def machine(architecture: str) -> Elsewhere:
    """An x86 host with a GPU of that architecture."""
    limits = {"max_shared_memory_per_block": 49152, "max_threads_per_block": 1024}
    gpu = Target({"kind": "cuda", "arch": architecture, **limits})
    return Elsewhere(host=Target({"kind": "llvm", "num-cores": 8}), devices={"cuda": gpu})


def opened(model: object, architecture: str, precision: str = "auto") -> Session:
    """A session for such a machine, with the unit `cuda` alone."""
    return Session.open(
        model, units=["cuda"], precision=precision, threads=8, elsewhere=machine(architecture)
    )


def kernels(session: Session) -> dict[str, tirx.PrimFunc]:
    """The kernels of all candidates, and of transforms between their layouts, by name."""
    offered = {id_: found.decisions for id_, found in session.candidates.items()}
    found: dict[str, tirx.PrimFunc] = {}
    with session.generating():
        lower = BACKENDS["cuda"].lower(session.elsewhere.host)
        for turn in range(max(map(len, offered.values()))):
            decisions = {id_: these[turn % len(these)] for id_, these in offered.items()}
            module = lower(
                RewriteLayouts(decisions, devices=frozenset({"cuda"}))(session.graph.module)
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


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for arch in ARCHITECTURES:
            codes = kernels(opened(name, arch))
            text = ptx(codes, arch)
            print(f"{name} {arch}: {len(codes)} functions, {text.count('.entry')} kernels")
