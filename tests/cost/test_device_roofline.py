"""The roofline of devices: their own ceilings, and their links to the host."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning import convolution, profile

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost.device_peaks import RESULTS_PER_UNIT, DevicePeaks
from layoutsel.cost.place import Place
from layoutsel.cost.roofline import ANY, Efficiency, RooflineCost
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

CARD = DevicePeaks(
    name="a card",
    compute_units=10,
    clock_mhz=1000.0,
    gflops=10_000.0,
    half_gflops=80_000.0,
    memory_gbps=1000.0,
    launch_us=5.0,
    link_gbps=10.0,
    link_us=8.0,
)
OTHER = dataclasses.replace(CARD, link_us=2.0, half_gflops=None)
WHOLE = {(ANY, ANY): Efficiency(compute=1.0, bandwidth=1.0, spread=2.0)}
OPENCL = Decision(unit="opencl", layout="NCHW")


def model(**changed):
    devices = {"opencl": dataclasses.replace(CARD, **changed), "cuda": OTHER}
    return RooflineCost(peaks=profile().peaks, devices=devices, efficiencies=WHOLE)


def us(work, decision=OPENCL, **changed):
    return model(**changed).estimate(work, decision).us


def test_a_device_has_its_own_ceilings():
    large = convolution(256, 256, 56, 3)
    assert us(large) == pytest.approx(5 + large.flops / 10_000 * 1e-3)
    small = dataclasses.replace(large, flops=0.0)
    moved = small.weight_bytes + small.activation_bytes
    assert us(small) == pytest.approx(5 + moved / 1000 * 1e-3)
    on_host = model().estimate(large, Decision(unit="cpu", layout="NCHW")).us
    assert on_host == pytest.approx(RooflineCost(profile().peaks, WHOLE).estimate(large, OPENCL).us)


def test_few_results_leave_compute_units_idle():
    half = RESULTS_PER_UNIT * CARD.compute_units // 2
    work = dataclasses.replace(convolution(512, 512, 7, 3), outputs=((1, half),))
    busy = dataclasses.replace(work, outputs=((1, 2 * half),))
    assert us(work) - 5 == pytest.approx(2 * (us(busy) - 5))
    more = dataclasses.replace(work, outputs=((1, 20 * half),))
    assert us(more) == us(busy)


def test_matrix_units_take_halves():
    work = convolution(256, 256, 56, 3)
    lower = dataclasses.replace(OPENCL, precision="bf16")
    assert us(work, lower) - 5 == pytest.approx((us(work) - 5) / 8)
    assert us(work, lower, half_gflops=None) == us(work)


def test_an_estimate_is_as_uncertain_as_its_efficiency():
    cost = model().estimate(convolution(8, 8, 7), OPENCL)
    assert cost.spread_us == pytest.approx(2 * cost.us)
    assert cost.source == "roofline"


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_links(one, other):
    def crossing(nbytes, *ends):
        spec = BoundaryTensor(shape=(1, 16), dtype="float32", bytes=nbytes)
        return model().boundary(spec, *(Place(unit=unit) for unit in ends)).us

    assert crossing(one, "opencl", "opencl") == 0
    assert crossing(one, "cpu", "onednn") == profile().peaks.launch_us
    assert crossing(one, "cpu", "opencl") == pytest.approx(8 + one * 1e-4)
    assert crossing(one, "opencl", "cpu") == crossing(one, "onednn", "opencl")
    through = crossing(one, "opencl", "cpu") + crossing(one, "cpu", "cuda")
    assert crossing(one, "opencl", "cuda") == pytest.approx(through)
    assert (crossing(one, "cpu", "cuda") <= crossing(other, "cpu", "cuda")) == (one <= other)


@pytest.mark.parametrize("field", ["gflops", "memory_gbps", "launch_us", "link_us", "half_gflops"])
def test_peaks_are_above_nothing(field):
    for value in (0.0, -1.0):
        with pytest.raises(LayoutselError, match="not a device's peaks"):
            dataclasses.replace(CARD, **{field: value})
