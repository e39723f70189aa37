"""Machines as data: what their files may say, and where they are kept."""

import dataclasses
import json

import pytest
from learning import profile, samples

from layoutsel import documents
from layoutsel.cost.archive import read_archive, write_archive
from layoutsel.cost.device_peaks import DevicePeaks
from layoutsel.cost.links import Links
from layoutsel.cost.logs import read_store
from layoutsel.cost.samples import Dataset, MachineProfile
from layoutsel.cost.store import Context, Store, Timing
from tests.links import both_ways
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError

DEVICE = DevicePeaks(
    name="a card",
    compute_units=100,
    clock_mhz=1500.0,
    gflops=15000.0,
    memory_gbps=1200.0,
    launch_us=5.0,
)
OPENCL = DeviceId("", "opencl", 0)
LINKS = both_ways(HOST_DEVICE, OPENCL, latency_us=10.0, gbps=20.0)
MACHINE = dataclasses.replace(profile(), devices={"opencl": DEVICE}, links=LINKS)


def written(tmp_path, change=lambda document: None):
    document = documents.to_json(MACHINE)
    change(document)
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(document))
    return file


def test_a_file_says_what_the_profile_is(tmp_path):
    assert MachineProfile.load(written(tmp_path)) == MACHINE


def test_what_is_optional_may_be_absent(tmp_path):
    without = written(tmp_path, lambda d: d["devices"]["opencl"].pop("half_gflops"))
    assert MachineProfile.load(without) == MACHINE
    older = written(tmp_path, lambda d: (d.pop("devices"), d.pop("links")))
    assert MachineProfile.load(older) == profile()


def as_older(document):
    """The form of files from before links were a table."""
    del document["links"]
    document["devices"]["opencl"] |= {"link_us": 10.0, "link_gbps": 20.0}


def test_older_files_are_read(tmp_path):
    assert MachineProfile.load(written(tmp_path, as_older)) == MACHINE


def with_second(document):
    """Two devices of one kind, with a direct link in one direction."""
    document["devices"]["opencl/1"] = document["devices"]["opencl"]
    ends = [("cpu/0", "opencl/1"), ("opencl/1", "cpu/0"), ("opencl/0", "opencl/1")]
    for source, destination in ends:
        link = {"source": source, "destination": destination, "latency_us": 1.0, "gbps": 50.0}
        document["links"].append(link)


def test_several_devices_of_one_kind(tmp_path):
    machine = MachineProfile.load(written(tmp_path, with_second))
    second = DeviceId("", "opencl", 1)
    assert machine.device(second) == machine.device(OPENCL) == DEVICE
    assert machine.device(HOST_DEVICE) is machine.device(DeviceId("", "cuda", 0)) is None
    links = Links.of(machine.links)
    assert links.copy_us(OPENCL, second, 1000) == pytest.approx(1.02)
    assert links.copy_us(second, OPENCL, 1000) == pytest.approx(1.02 + 10.05)
    again = json.loads(json.dumps(documents.to_json(machine)))
    assert MachineProfile.read(again) == machine


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.pop("peaks"), r"\$\.peaks: got nothing"),
        (
            lambda d: (as_older(d), d["devices"]["opencl"].pop("link_us")),
            r"\$\.devices\.opencl\.link_us: got nothing; expected this field, or entries of \$\.links",
        ),
        (lambda d: d.pop("links"), "no link from cpu/0 to opencl/0: expected links in both direct"),
        (lambda d: d["links"].pop(), "no link from opencl/0 to cpu/0"),
        (lambda d: d["links"][0].pop("gbps"), r"\$\.links\[0\]\.gbps: got nothing"),
        (
            lambda d: d["links"][0].update(source="gpu"),
            r"\$\.links\[0\]\.source: got 'gpu'; expected",
        ),
        (lambda d: d["links"][0].update(gbps=0), "not a link"),
        (
            lambda d: d["links"][0].update(source="cuda/0"),
            "a device that the machine does not have",
        ),
        (lambda d: d.update(links={}), r"\$\.links: got \{\}"),
        (lambda d: d["devices"]["opencl"].update(gflops="fast"), r"opencl\.gflops: got \"fast\""),
        (lambda d: d["devices"].update(cuda=7), r"\$\.devices\.cuda: got 7"),
        (lambda d: d.update(devices=[]), r"\$\.devices: got \[\]"),
        (lambda d: d["devices"]["opencl"].update(gflops=0), "not a device's peaks"),
        (lambda d: d["devices"]["opencl"].update(half_gflops=-1.0), "not a device's peaks"),
        (lambda d: d.update(gpu={}), "an unknown field"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, expected):
    with pytest.raises(LayoutselError, match=expected):
        MachineProfile.load(written(tmp_path, change))


def test_logs_keep_the_devices(tmp_path):
    dataset = Dataset(samples=samples(3, machine=MACHINE) + samples(2, seed=1))
    write_archive(dataset, tmp_path / "data.jsonl.xz")
    again, skipped = read_archive(tmp_path / "data.jsonl.xz")
    profiles = [sample.provenance.profile for sample in dataset.samples]
    assert [sample.provenance.profile for sample in again.samples] == profiles
    assert not skipped


def test_stores_keep_the_devices(tmp_path):
    sample = samples(1, machine=MACHINE)[0]
    context = Context(machine=MACHINE.machine.fingerprint, versions={}, threads=MACHINE.threads)
    described = documents.to_json(MACHINE)
    with Store(context, tmp_path / "store.sqlite") as store:
        store.describe(sample.workload)
        store.describe_machine({**described.pop("machine"), **described})
        store.put("other", sample.decision, Timing(us=1.0, spread_us=0.1, runs=3))
        store.put(sample.workload.key, sample.decision, Timing(us=sample.us, spread_us=0.1, runs=3))
    found, _ = read_store(tmp_path / "store.sqlite")
    (read,) = found.samples
    assert read.provenance.profile == MACHINE
