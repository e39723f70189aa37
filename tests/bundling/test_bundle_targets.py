"""Targets as the command line has them."""

import pytest
from tvm.target import Target

from layoutsel.bundling.targets import architecture, features, machine_of_targets, parse_target
from tvm_passes.errors import LayoutselError

ARM = '{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}'


def test_words_and_json_mean_the_same():
    words = parse_target("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72")
    assert str(words) == str(parse_target(ARM))
    assert list(parse_target("llvm -mcpu=haswell -mattr=+avx,-fma").attrs["mattr"]) == [
        "+avx",
        "-fma",
    ]


def test_targets_make_a_machine():
    machine = machine_of_targets(["cuda -arch=sm_80", ARM], 4)
    assert architecture(machine.host) == "aarch64"
    assert features(machine.host) == ()
    assert int(machine.host.attrs["num-cores"]) == 4
    assert machine.devices["cuda"].attrs["arch"] == "sm_80"
    assert machine_of_targets([], 4) is None


def test_without_a_cpu_it_is_this_one():
    machine = machine_of_targets(["opencl"], None)
    assert str(machine.host.kind.name) == "llvm"
    assert set(machine.devices) == {"opencl"}


def test_features_are_the_kernels_names():
    found = features(Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}))
    assert {"avx2", "fma", "bmi1", "sse4_2"} <= set(found)
    assert not any("avx512" in name for name in found)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["nothing"], "'nothing'.*expected something like"),
        (["llvm mcpu=haswell"], "got 'mcpu=haswell' in it"),
        (["{broken"], "expected something like"),
        (["vulkan"], "got kind 'vulkan'; expected one of llvm"),
        (["llvm -num-cores=2", "llvm -num-cores=4"], "a second target of kind 'llvm'"),
        ([ARM], "add --threads N"),
    ],
)
def test_what_is_no_machine_is_refused(texts, expected):
    with pytest.raises(LayoutselError, match=expected):
        machine_of_targets(texts, None)
