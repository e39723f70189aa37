"""Whatever stands in a log: reading it does not crash, and what was read can be trained on and written again."""

from __future__ import annotations

import copy
import json
import lzma
import shutil
import sqlite3
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learning import boundaries, convolution, profile, samples

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost.archive import _lines, read_archive, write_archive
from layoutsel.cost.logs import read_logs
from layoutsel.cost.samples import Dataset
from layoutsel.cost.store import Context, Store, Timing
from layoutsel.cost.training import boundary_table, subgraph_table
from tvm_passes.decision import Decision

NHWC = Decision(unit="cpu", layout="NHWC")
JUNK = (
    *(None, True, False, -1, 0, 7, 10**15, 10**400, -1e9, 0.5, float("nan"), float("inf")),
    *("", "x", "cpu", "NCHW", [], {}, [1, "a"], [[]], {"a": 1}, {"a": [1]}),
)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A small data set, line by line."""
    file = tmp_path_factory.mktemp("archive") / "a.xz"
    work = replace(convolution(8, 16, 7), hints={str(NHWC): {"tasks": 3.0}})
    first = replace(samples(1)[1], workload=work, decision=NHWC)
    write_archive(Dataset(samples=(first, *samples(2)), boundaries=boundaries(2)), file)
    with lzma.open(file, "rt") as stream:
        return [json.loads(line) for line in stream]


def places(value, path=()):
    """Every path into a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def put(value, path, junk):
    if not path:
        return junk
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], junk)
    return changed


def assert_trainable(dataset):
    for table in (
        *([subgraph_table(dataset.samples)] if dataset.samples else []),
        *([boundary_table(dataset.boundaries)] if dataset.boundaries else []),
    ):
        for numbers in (table.rows, table.margins, table.targets, table.weights, table.spreads):
            assert np.isfinite(numbers).all()


def write_lines(file, texts):
    file.write_bytes(lzma.compress(("\n".join(texts) + "\n").encode(), preset=0))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_one_senseless_value_in_a_data_set(lines, tmp_path, data):
    number = data.draw(st.integers(1, len(lines) - 1))
    path = data.draw(st.sampled_from(list(places(lines[number]))))
    changed = [*lines[:number], put(lines[number], path, data.draw(st.sampled_from(JUNK)))]
    file = tmp_path / "a.xz"
    write_lines(file, [json.dumps(line) for line in (*changed, *lines[number + 1 :])])
    dataset, skipped = read_archive(file)
    assert_trainable(dataset)
    assert len(dataset.samples) + len(dataset.boundaries) > 0 or skipped
    assert all(json.dumps(line) for line in _lines(dataset))


@pytest.mark.parametrize("broken", ["", "{", "\x00", "[" * 100_000, '{"kind": ["a"]}'])
@pytest.mark.parametrize("kind", ["context", "workload"])
def test_a_lost_line_does_not_mix_up_the_others(lines, tmp_path, kind, broken):
    """The first context or workload is no JSON any more: what refers to it is skipped, nothing else changes."""
    file = tmp_path / "a.xz"
    texts = [json.dumps(line) for line in lines]
    write_lines(file, texts)
    whole, none = read_archive(file)
    assert not none
    place = next(i for i, line in enumerate(lines) if line["kind"] == kind)
    write_lines(file, [*texts[:place], broken, *texts[place + 1 :]])
    dataset, skipped = read_archive(file)
    assert sum(part.count for part in skipped) >= 2
    assert len(dataset.samples) < len(whole.samples)
    assert set(map(repr, dataset.samples)) <= set(map(repr, whole.samples))


def test_a_file_without_numbers_is_read_as_before(lines, tmp_path):
    file, old = tmp_path / "a.xz", tmp_path / "b.xz"
    write_lines(file, [json.dumps(line) for line in lines])
    bare = [{k: v for k, v in line.items() if k != "id"} for line in lines]
    write_lines(old, [json.dumps(line) for line in bare])
    assert read_archive(old) == read_archive(file)


def test_the_order_of_names_does_not_change_the_bytes(tmp_path):
    found = samples(2)[0]
    turned = dict(reversed(found.workload.attributes.items()))
    other = replace(found, workload=replace(found.workload, attributes=turned))
    assert other == found
    for name, sample in (("a", found), ("b", other)):
        write_archive(Dataset(samples=(sample,)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_was_read_is_written_as_it_was(lines, tmp_path):
    file, again = tmp_path / "a.xz", tmp_path / "b.xz"
    write_lines(file, [json.dumps(line) for line in lines])
    write_archive(read_archive(file)[0], file)
    write_archive(read_archive(file)[0], again)
    assert again.read_bytes() == file.read_bytes()
    assert read_archive(file) == (read_archive(again)[0], ())


@pytest.fixture
def log(tmp_path):
    """A store, in a folder with a name that means something in a URI."""
    found = tmp_path / "50% of it?mode=rw#1" / "log.sqlite"
    here = profile()
    context = Context(machine=here.machine.fingerprint, versions={"v": "1"}, threads=here.threads)
    with Store(context, found) as store:
        store.describe_machine({**asdict(here.machine), "peaks": asdict(here.peaks)})
        for channels in (8, 16):
            work = convolution(channels, 8, 7)
            store.describe(replace(work, hints={str(NHWC): {"tasks": 2.0}}))
            store.put(work.key, NHWC, Timing(us=12.5, spread_us=0.5, runs=9))
            tensor = BoundaryTensor(
                shape=(1, channels, 7, 7), dtype="float32", bytes=196 * channels
            )
            store.put_boundary(
                "transform", "NCHW", "NHWC", tensor, Timing(us=1.5, spread_us=0.1, runs=9)
            )
    return found


def test_a_store_is_read_from_a_folder_of_any_name(log):
    dataset, skipped = read_logs([log])
    assert (len(dataset.samples), len(dataset.boundaries), skipped) == (2, 2, ())
    assert dataset.samples[0].workload.hints == {str(NHWC): {"tasks": 2.0}}


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        ("machine", "description", ["1", '"x"', "[]", "{}", '{"peaks": 1}', "{", "[" * 100_000]),
        ("workload", "description", ["1", '"x"', "[]", "{}", "{"]),
        ("hints", "hints", ["1", "[1]", '{"tasks": "many"}', '{"tasks": 1e300}', "{"]),
        ("measurement", "median_us", [0, -1, 1e300, "x", None]),
        ("measurement", "spread_us", [-1, 1e300, "x", None]),
        ("measurement", "runs", ["x", None]),
        ("measurement", "versions", ["1", "[]", "{", '{"v": 1}']),
        ("measurement", "decision", ["", "cpu", "a:b:c:d:e"]),
        ("boundary", "median_us", [-1, 1e300, "x"]),
        ("boundary", "shape", ["1", '["a"]', "{", "[1.5]"]),
        ("boundary", "bytes", [-1, "x"]),
        ("boundary", "kind", ["dream", "subgraph"]),
        ("boundary", "destination", ["NCHW"]),
    ],
)
def test_one_senseless_column_in_a_store(log, tmp_path, table, column, values):
    for value in values:
        changed = shutil.copy(log, tmp_path / "changed.sqlite")
        connection = sqlite3.connect(changed)
        ((saved,), *_) = connection.execute(f"SELECT {column} FROM {table}").fetchall()
        connection.execute(f"UPDATE {table} SET {column}=? WHERE {column}=?", (value, saved))
        connection.commit()
        connection.close()
        dataset, skipped = read_logs([changed])
        assert skipped, (column, value)
        assert all(part.reason and part.file == str(changed) for part in skipped)
        assert len(dataset.samples) + len(dataset.boundaries) < 4
        assert_trainable(dataset)
