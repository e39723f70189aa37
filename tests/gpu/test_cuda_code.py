"""What is generated for CUDA: compiled by NVIDIA's compiler, where there is one, for GPUs that need not be here."""

from __future__ import annotations

import shutil

import pytest
from cuda_code import ARCHITECTURES, KERNEL, kernels, opened, ptx

from layoutsel.compile.offers import Offers
from tests.bodies import BODIES
from tests.cpu.support import model

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")


@pytest.mark.nightly
@needs_nvcc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_candidate_of_every_kind_compiles(architecture):
    codes = {}
    for body, shapes in BODIES.values():
        codes |= kernels(opened(model(body, *shapes), architecture))
    text = ptx(codes, architecture)
    assert f".target {architecture}" in text
    assert all(f".entry {name}{KERNEL}" in text for name in codes)


@needs_nvcc
@pytest.mark.nightly
def test_every_candidate_of_a_network_compiles():
    """Others, for both architectures: bench/cuda_code.py."""
    codes = kernels(opened("light:squeezenet", "sm_90"))
    assert ptx(codes, "sm_90").count(".entry") >= len(codes)


def test_large_products_in_bfloat16_run_on_tensor_cores():
    module = model(BODIES["large"][0], *BODIES["large"][1])
    named = {
        architecture: [
            name
            for name, code in kernels(opened(module, architecture)).items()
            if "tvm_mma_sync" in code.script()
        ]
        for architecture in ("sm_75", "sm_80")
    }
    assert named["sm_75"] == []
    assert len(named["sm_80"]) == 3


def test_older_gpus_decline_bfloat16():
    session = opened(model(BODIES["product"][0], *BODIES["product"][1]), "sm_75")
    (found,) = Offers.of(session).candidates.values()
    assert {decision.precision for decision in found.decisions} == {"f32"}
    assert any("compute capability 7.5" in str(decline) for decline in found.declines)
