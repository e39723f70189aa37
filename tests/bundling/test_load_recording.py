"""Candidates of a model, compiled, and timed under real loads in turns with an idle machine."""

from pathlib import Path

import pytest

from layoutsel.bundling.load_candidates import write_load_candidates
from layoutsel.bundling.load_recording import loads, record_loads
from layoutsel.cost.archive import read_archive, write_archive
from layoutsel.cost.samples import Dataset
from layoutsel.device.archive import opened
from layoutsel.device.core_load import CoreLoad
from layoutsel.device.threads import available_threads
from tvm_passes.errors import LayoutselError

MODEL = Path(__file__).parents[1] / "data" / "exits" / "mnist1d.onnx"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("load") / "one.bundle"
    chosen = write_load_candidates(MODEL, 1, path, subgraphs=2)
    assert len({request.key for request in chosen}) == 2
    with opened(path) as bundle:
        return record_loads([bundle], budget_s=4.0, turns=1)


def test_every_candidate_is_timed_on_every_place_under_every_load(samples):
    cores = available_threads()
    expected = {str(CoreLoad.of(some, cores)) for some in loads(cores).values()}
    assert len(expected) == len(loads(cores))
    seen = {(one.workload.key, one.conditions.cores, str(one.conditions.load)) for one in samples}
    places = {(0,), (cores - 1,)}
    assert len(samples) == len(seen) == 2 * len(places) * len(expected)
    assert {cores for _, cores, _ in seen} == places
    assert {load for _, _, load in seen} == expected
    assert all(one.us > 0 and one.idle_us > 0 and one.runs > 0 for one in samples)


def test_a_recording_survives_its_file(samples, tmp_path):
    file = tmp_path / "loads.jsonl.xz"
    write_archive(Dataset(loaded=samples), file)
    dataset, skipped = read_archive(file)
    assert not skipped
    assert [one.conditions for one in dataset.loaded] == [one.conditions for one in samples]
    assert {one.model for one in dataset.loaded} == {"mnist1d"}


def test_loads_of_one_core_need_no_other():
    assert {process.core for some in loads(1).values() for process in some} == {0}
    assert len(loads(1)) < len(loads(2))


def test_nothing_to_time_is_one_error():
    with pytest.raises(LayoutselError, match="nothing to time under load"):
        record_loads([], budget_s=1.0)
