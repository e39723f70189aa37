"""The target that stands for this machine, whatever a hypervisor calls its CPU."""

from __future__ import annotations

import platform

import pytest

from tvm_passes.cpu import host
from tvm_passes.cpu.host import generation, host_target
from tvm_passes.isa import VARIABLE, cpu_flags

HASWELL = frozenset({"popcnt", "sse4_2", "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm"})
SKYLAKE = HASWELL | {f"avx512{name}" for name in ("f", "bw", "cd", "dq", "vl")}
ICELAKE = SKYLAKE | {
    *(f"avx512_{name}" for name in ("vnni", "vbmi2", "bitalg")),
    *("avx512vbmi", "avx512ifma", "gfni", "vaes", "vpclmulqdq"),
}
SAPPHIRE_RAPIDS = ICELAKE | {
    *("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"),
}


@pytest.mark.parametrize(
    ("name", "flags", "cpu", "more"),
    [
        ("haswell", HASWELL, "haswell", ()),
        ("sapphirerapids", SAPPHIRE_RAPIDS, "sapphirerapids", ()),
        ("rocketlake", SAPPHIRE_RAPIDS, "sapphirerapids", ()),
        ("rocketlake", ICELAKE, "rocketlake", ()),
        ("icelake-server", ICELAKE | {"avx512_bf16"}, "icelake-server", ("+avx512bf16",)),
        ("sapphirerapids", HASWELL | {"avx_vnni"}, "haswell", ("+avxvnni",)),
        ("znver4", ICELAKE | {"avx512_bf16"}, "znver4", ()),
        ("apple-m1", frozenset({"asimd"}), "apple-m1", ()),
    ],
)
def test_the_cpu_with_the_most_of_its_extensions_and_no_other(name, flags, cpu, more):
    assert generation(name, flags) == (cpu, more)


def test_a_limit_adds_nothing_that_the_cpu_lacks(monkeypatch):
    monkeypatch.setenv(VARIABLE, "AVX512_CORE")
    for missing, expected in ((set(), "skylake-avx512"), ({"avx512f", "avx512bw"}, "haswell")):
        flags = (HASWELL | SKYLAKE) - missing
        monkeypatch.setattr(host, "cpu_flags", lambda flags=flags: flags)
        monkeypatch.setattr(host.codegen, "llvm_get_system_cpu", lambda: "haswell")
        assert host.host_target().attrs["mcpu"] == expected


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are x86's names of extensions")
def test_this_machine_gets_what_it_has():
    features = {"avx512_bf16": "avx512bf16", "amx_bf16": "amx-bf16", "avx2": "avx2"}
    from tvm.target import codegen

    target = host_target()
    for flag, feature in features.items():
        assert bool(codegen.llvm_cpu_has_features(feature, target)) == (flag in cpu_flags())
