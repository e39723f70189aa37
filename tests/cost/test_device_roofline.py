"""The roofline of devices: their own ceilings, and their links to the host."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning import convolution, profile

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost.device_peaks import RESULTS_PER_UNIT, DevicePeaks
from layoutsel.cost.links import DeviceLink, Links
from layoutsel.cost.place import Place
from layoutsel.cost.roofline import ANY, Efficiency, RooflineCost
from tests.links import both_ways
from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.devices import DeviceId
from tvm_passes.errors import LayoutselError

CARD = DevicePeaks(
    name="a card",
    compute_units=10,
    clock_mhz=1000.0,
    gflops=10_000.0,
    half_gflops=80_000.0,
    memory_gbps=1000.0,
    launch_us=5.0,
)
OTHER = dataclasses.replace(CARD, half_gflops=None)
HOST, FIRST, SECOND, CUDA = map(DeviceId.parse, ("cpu/0", "opencl/0", "opencl/1", "cuda/0"))
LINKS = (
    *both_ways(HOST, FIRST, latency_us=8.0, gbps=10.0),
    *both_ways(HOST, SECOND, latency_us=8.0, gbps=10.0),
    *both_ways(HOST, CUDA, latency_us=2.0, gbps=10.0),
)
WHOLE = {(ANY, ANY): Efficiency(compute=1.0, bandwidth=1.0, spread=2.0)}
OPENCL = Decision(unit="opencl", layout="NCHW")


def model(links=LINKS, **changed):
    devices = {"opencl": dataclasses.replace(CARD, **changed), "opencl/1": CARD, "cuda": OTHER}
    return RooflineCost(
        peaks=profile().peaks, devices=devices, efficiencies=WHOLE, links=Links.of(links)
    )


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


def crossing(nbytes, *ends, links=LINKS):
    spec = BoundaryTensor(shape=(1, 16), dtype="float32", bytes=nbytes)
    places = (Place("NCHW", *parse_placed_unit(end)) for end in ends)
    return model(links).boundary(spec, *places).us


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_links(one, other):
    assert crossing(one, "opencl", "opencl") == 0
    assert crossing(one, "cpu", "onednn") == profile().peaks.launch_us
    assert crossing(one, "cpu", "opencl") == pytest.approx(8 + one * 1e-4)
    assert crossing(one, "opencl", "cpu") == crossing(one, "onednn", "opencl")
    through = crossing(one, "opencl", "cpu") + crossing(one, "cpu", "cuda")
    assert crossing(one, "opencl", "cuda") == pytest.approx(through)
    assert (crossing(one, "cpu", "cuda") <= crossing(other, "cpu", "cuda")) == (one <= other)


@pytest.mark.parametrize("field", ["gflops", "memory_gbps", "launch_us", "half_gflops"])
def test_peaks_are_above_nothing(field):
    for value in (0.0, -1.0):
        with pytest.raises(LayoutselError, match="not a device's peaks"):
            dataclasses.replace(CARD, **{field: value})


@given(st.integers(0, 2**40))
def test_copies_between_devices_of_a_kind_take_the_direct_link_if_there_is_one(nbytes):
    ends = ("opencl", "opencl@1")
    through = crossing(nbytes, "opencl", "cpu") + crossing(nbytes, "cpu", "opencl@1")
    assert crossing(nbytes, *ends) == pytest.approx(through)
    direct = (*LINKS, DeviceLink(source=FIRST, destination=SECOND, latency_us=1.0, gbps=100.0))
    assert crossing(nbytes, *ends, links=direct) == pytest.approx(1.0 + nbytes * 1e-5)
    assert crossing(nbytes, *reversed(ends), links=direct) == pytest.approx(through)


def test_links_have_two_directions():
    there = DeviceLink(source=HOST, destination=FIRST, latency_us=1.0, gbps=1.0)
    back = DeviceLink(source=FIRST, destination=HOST, latency_us=3.0, gbps=2.0)
    assert crossing(1000, "cpu", "opencl", links=(there, back)) == pytest.approx(2.0)
    assert crossing(1000, "opencl", "cpu", links=(there, back)) == pytest.approx(3.5)


def test_every_device_has_its_own_ceilings():
    work = convolution(256, 256, 56, 3)
    slower = model(gflops=5_000.0)
    assert slower.estimate(work, OPENCL).us - 5 == pytest.approx(work.flops / 5_000 * 1e-3)
    second = Decision.parse("opencl@1:NCHW")
    assert slower.estimate(work, second).us - 5 == pytest.approx(work.flops / 10_000 * 1e-3)


@pytest.mark.parametrize("field", ["latency_us", "gbps"])
def test_links_take_time(field):
    link = DeviceLink(source=HOST, destination=FIRST, latency_us=1.0, gbps=1.0)
    for value in (0.0, -1.0):
        with pytest.raises(LayoutselError, match="not a link"):
            dataclasses.replace(link, **{field: value})
    with pytest.raises(LayoutselError, match="not a link"):
        dataclasses.replace(link, destination=HOST)
