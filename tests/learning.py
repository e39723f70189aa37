"""Samples by a made-up law, for tests of learning."""

from __future__ import annotations

import numpy as np

from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost.peaks import MachinePeaks
from layoutsel.cost.samples import BoundarySample, MachineProfile, Provenance, Sample
from layoutsel.device.machine import Machine
from tvm_passes.decision import Decision

LAYOUTS = ("NCHW", "NHWC", "NCHW16c")


def profile(cores: int = 2, isa: tuple[str, ...] = ("avx512f",)) -> MachineProfile:
    machine = Machine(cpu="test", cores=cores, isa=isa, caches={"L2": 1 << 20}, memory_gib=8)
    peaks = MachinePeaks(
        threads=cores, gflops=200.0 * cores, cache_gbps=90.0, memory_gbps=30.0, cache_bytes=2 << 20
    )
    return MachineProfile(machine=machine, peaks=peaks)


def convolution(channels: int, outputs: int, side: int, kernel: int = 1) -> Workload:
    work = 2.0 * side * side * channels * outputs * kernel * kernel
    return Workload(
        key=f"conv{channels}-{outputs}-{side}-{kernel}",
        operator="nn.conv2d",
        flops=work,
        weight_bytes=4.0 * channels * outputs * kernel * kernel,
        activation_bytes=4.0 * side * side * (channels + outputs),
        operators=("nn.conv2d", "nn.relu"),
        inputs=((1, channels, side, side),),
        weights=((outputs, channels, kernel, kernel),),
        outputs=((1, outputs, side, side),),
        attributes={"strides": (1, 1), "padding": (kernel // 2,) * 4, "groups": (1,)},
    )


def law(work: Workload, decision: Decision, machine: MachineProfile) -> float:
    """Microseconds: an efficiency for each layout, worse for few channels."""
    efficiency = {"NCHW": 0.3, "NHWC": 0.6, "NCHW16c": 0.8}[decision.layout]
    few = 1 + 16 / work.inputs[0][1]
    return 2 + few * work.flops / (machine.peaks.gflops * efficiency) * 1e-3


def workloads(count: int, seed: int = 0) -> list[Workload]:
    rng = np.random.default_rng(seed)
    return [
        convolution(
            *(int(8 * rng.integers(1, 40)) for _ in range(2)),
            side=int(rng.choice([7, 14, 28, 56])),
            kernel=int(rng.choice([1, 3])),
        )
        for _ in range(count)
    ]


def samples(
    count: int = 80,
    seed: int = 0,
    noise: float = 0.0,
    unit: str = "cpu",
    machine: MachineProfile | None = None,
) -> tuple[Sample, ...]:
    rng = np.random.default_rng(seed)
    machine = machine or profile()
    found = {}
    for work in workloads(count, seed):
        for layout in LAYOUTS:
            decision = Decision(unit=unit, layout=layout)
            us = law(work, decision, machine) * float(np.exp(noise * rng.standard_normal()))
            found[work.key, layout] = Sample(
                workload=work,
                decision=decision,
                us=us,
                spread_us=max(noise, 0.01) * us,
                runs=9,
                provenance=Provenance(profile=machine, versions={"v": "1"}, date="2026-01-01"),
            )
    return tuple(found.values())


def boundaries(count: int = 40) -> tuple[BoundarySample, ...]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        shape = (1, int(8 * rng.integers(1, 32)), 28, 28)
        nbytes = 4 * shape[1] * 28 * 28
        found.append(
            BoundarySample(
                kind="transform",
                source="NCHW",
                destination="NHWC",
                tensor=BoundaryTensor(shape=shape, dtype="float32", bytes=nbytes),
                us=1 + nbytes / 2e4,
                spread_us=0.1,
                runs=9,
                provenance=Provenance(profile=profile(), versions={}, date=""),
            )
        )
    return tuple(found)
