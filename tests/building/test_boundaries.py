"""Which transforms are measured: f32's layouts at a few sizes, storages only where a tensor has them at both ends."""

import itertools
from dataclasses import replace

import pytest

from layoutsel.building.boundaries import (
    SIZES,
    measure_boundaries,
    measure_conversions,
    measure_copies,
)
from layoutsel.cost.store import Context, Store
from layoutsel.cost.tensor import Tensor
from layoutsel.device.worker import Reply
from tvm_passes.devices import DeviceId

CONTEXT = Context(machine="m", versions={}, threads=1)


class Asked:
    """A worker that remembers what it is asked."""

    def __init__(self):
        self.payloads = []

    def call(self, payload):
        self.payloads.append(payload)
        return Reply(value=(1.0, 0.1, 3), seconds=0.1)

    @property
    def transforms(self):
        return [(p["source"], p["destination"]) for p in self.payloads if p["kind"] == "transform"]


def tensor(side, *pairs):
    return Tensor(
        producer=None,
        output_index=0,
        uses=(),
        shape=(1, 32, side, side),
        bytes=4 * 32 * side * side,
        transform_us=dict.fromkeys(pairs, 1.0),
    )


@pytest.fixture
def store(tmp_path):
    with Store(CONTEXT, tmp_path / "m.sqlite") as opened:
        yield opened


def test_f32_is_measured_as_ever(store):
    worker = Asked()
    tensors = [tensor(side, ("NCHW", "NHWC")) for side in range(4, 14)]
    measure_boundaries(tensors, ["NCHW", "NHWC", "NCHW16c"], ("cpu",), store, worker, 1)
    assert len(worker.transforms) == 6 * SIZES
    assert set(worker.transforms) >= {("NCHW16c", "NHWC"), ("NHWC", "NCHW")}


def test_storages_are_measured_for_the_pairs_that_occur(store):
    worker = Asked()
    tensors = [tensor(side, ("NHWC", "NHWC.bf16"), ("NCHW", "NHWC")) for side in range(4, 14)]
    tensors.append(tensor(20, ("NHWC.split", "NCHW")))
    measure_conversions(tensors, ("onednn", "cpu"), store, worker, 1)
    assert worker.transforms.count(("NHWC", "NHWC.bf16")) == SIZES
    assert worker.transforms.count(("NHWC.split", "NCHW")) == 1
    assert len(worker.transforms) == SIZES + 1
    units = {p["source"]: p["unit"] for p in worker.payloads}
    assert units == {"NHWC": "onednn", "NHWC.split": "cpu"}


def test_what_is_known_is_not_measured_again(store):
    first, second = Asked(), Asked()
    tensors = [tensor(8, ("NHWC", "NHWC.bf16"))]
    measure_conversions(tensors, ("cpu",), store, first, 1)
    measure_conversions([*tensors, replace(tensors[0])], ("cpu",), store, second, 1)
    assert (len(first.payloads), len(second.payloads)) == (1, 0)


def test_copies_are_measured_once_for_each_memory(store):
    worker = Asked()
    measure_copies([tensor(8)], ("onednn", "opencl", "cpu"), store, worker, 1)
    ends = [(p["source"], p["destination"]) for p in worker.payloads]
    assert sorted(ends) == [("cpu", "opencl")] * 2 + [("opencl", "cpu")] * 2
    measure_boundaries([tensor(8)], [], ("onednn", "opencl", "cpu"), store, worker, 1)
    more = [(p["source"], p["destination"]) for p in worker.payloads[4:]]
    assert set(more) == {("onednn", "cpu"), ("cpu", "onednn")}


OPENCL = tuple(DeviceId("", "opencl", index) for index in range(3))


def copied(worker):
    """Ends of the copies that were measured, each once though at two sizes."""
    found = [(p["source"], p["destination"]) for p in worker.payloads]
    assert all(found.count(pair) == 2 for pair in found)
    return set(found)


def test_every_device_s_copies_are_measured(store):
    worker = Asked()
    measure_copies([tensor(8)], ("cpu", "opencl", "opencl@1"), store, worker, 1)
    units = ("cpu", "opencl", "opencl@1")
    assert copied(worker) == set(itertools.permutations(units, 2))


def test_one_pair_stands_for_devices_that_are_alike(store):
    worker = Asked()
    units = ("cpu", "opencl", "opencl@2")
    alike = dict.fromkeys(OPENCL, OPENCL[0])
    measure_copies([tensor(8)], units, store, worker, 1, alike=alike)
    pairs = {("cpu", "opencl"), ("opencl", "cpu"), ("opencl", "opencl@1")}
    assert copied(worker) == pairs
    again = Asked()
    measure_copies([tensor(8)], units, store, again, 1, alike=alike)
    assert not again.payloads
