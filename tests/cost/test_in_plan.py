"""What a sub-graph costs in a plan beyond its time alone: weights from memory, inputs of other cores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layoutsel.core.workload import Workload
from layoutsel.cost.in_plan import FETCH_GBPS, InPlan, fetching_us
from layoutsel.cost.peaks import MachinePeaks
from tvm_passes.decision import Decision

INPUT = (1, 64, 28, 28)


@pytest.mark.parametrize(
    ("precision", "parts", "nbytes"),
    [
        ("bf16", 1, 0.0),
        ("bf16", 2, 64 * 28 * 28),
        ("split-bf16", 2, 2 * 64 * 28 * 28),
        ("split-bf16", 4, 3 * 64 * 28 * 28),
    ],
)
def test_every_thread_fetches_what_the_others_wrote(precision, parts, nbytes):
    decision = Decision.parse(f"amx:NHWC:{precision}")
    work = Workload(
        key="a",
        operator="nn.conv2d",
        flops=1,
        weight_bytes=1,
        activation_bytes=1,
        inputs=(INPUT,),
        hints={str(decision): {"parts": float(parts)}},
    )
    assert fetching_us(work, decision) == pytest.approx(nbytes / FETCH_GBPS * 1e-3)
    assert fetching_us(work, Decision.parse("onednn:NHWC")) == 0.0


PEAKS = MachinePeaks(
    threads=2, gflops=200.0, cache_gbps=100.0, memory_gbps=20.0, cache_bytes=2 << 20
)
MB = 1 << 20


def product(decision="cpu:NCHW", **hints):
    return Workload(
        key="a",
        operator="nn.conv2d",
        flops=1,
        weight_bytes=4.0 * MB,
        activation_bytes=0.0,
        hints={decision: hints},
    )


def test_weights_of_a_large_network_are_read_from_memory():
    """At the difference of both rates, as the time alone holds reading them from the cache."""
    more_us = InPlan(PEAKS, 1e15).streaming_us(product(), Decision.parse("cpu:NCHW"))
    assert more_us == pytest.approx(4 * MB / 20e3 - 4 * MB / 100e3)


def test_weights_of_a_small_network_stay_in_the_cache():
    decision = Decision.parse("cpu:NCHW")
    times = [InPlan(PEAKS, nbytes).streaming_us(product(), decision) for nbytes in (0, MB, 9 * MB)]
    assert times[1] < 0.01 * times[2]
    assert times == sorted(times)


def test_transformed_weights_are_larger():
    plain = InPlan(PEAKS, 1e9).streaming_us(product(), Decision.parse("cpu:NCHW"))
    for outputs, growth in ((2, 16 / 9), (4, 36 / 9)):
        name = "cpu:NCHW:f32:winograd"
        work = product(name, kernel_winograd=1.0, outputs=float(outputs))
        larger = InPlan(PEAKS, 1e9).streaming_us(work, Decision.parse(name))
        assert larger == pytest.approx(growth * plain)


def test_narrow_weights_are_smaller():
    plain, narrow = (
        InPlan(PEAKS, 1e9).streaming_us(product(), Decision.parse(f"cpu:NCHW:{precision}"))
        for precision in ("f32", "bf16")
    )
    assert narrow == pytest.approx(plain / 2)


def test_a_memory_as_fast_as_the_cache_costs_nothing_more():
    peaks = replace(PEAKS, memory_gbps=120.0)
    assert InPlan(peaks, 1e9).streaming_us(product(), Decision.parse("cpu:NCHW")) == 0


def test_devices_have_their_own_memory():
    assert InPlan(PEAKS, 1e9).us(product(), Decision.parse("cuda:NCHW")) == 0
