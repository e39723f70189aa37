"""Data sets as files: nothing is lost, nothing broken gets in, and nothing crashes."""

from __future__ import annotations

import contextlib
import json
import lzma
from dataclasses import replace

import pytest
from learning import boundaries, profile, samples

from layoutsel.cost.archive import read_archive, write_archive
from layoutsel.cost.samples import Dataset, Offer, RecordedModel, RecordedNode, quietest
from layoutsel.cost.tensor import Tensor, TensorUse
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import LayoutselError


def dataset() -> Dataset:
    found = samples(6)
    hints = {str(found[0].decision): {"tasks": 4.0}}
    first = replace(found[0], workload=replace(found[0].workload, hints=hints))
    offer = Offer(decision=Decision(unit="cpu"), in_layouts=("NCHW",), out_layouts=("NCHW",))
    node = RecordedNode(id=SubgraphId("s0"), key=found[0].workload.key, offers=(offer,))
    use = TensorUse(consumer=SubgraphId("s0"), input_index=0)
    tensor = Tensor(producer=None, output_index=0, uses=(use,), shape=(1, 3, 8, 8), bytes=768)
    model = RecordedModel(name="m", machine=profile().name, nodes=(node,), tensors=(tensor,))
    return Dataset(samples=(first, *found[1:]), boundaries=boundaries(3), models=(model,))


def lines_of(file):
    with lzma.open(file, "rt") as stream:
        return stream.read().splitlines()


def write_lines(file, lines):
    with lzma.open(file, "wt") as stream:
        stream.write("\n".join(lines) + "\n")


def rounded(found):
    return [(s.workload.key, s.decision, pytest.approx(s.us, abs=1e-4)) for s in found.samples]


def test_round_trip(tmp_path):
    write_archive(dataset(), tmp_path / "a.jsonl.xz")
    again, skipped = read_archive(tmp_path / "a.jsonl.xz")
    assert not skipped
    assert [(s.workload.key, s.decision, s.us) for s in again.samples] == rounded(dataset())
    assert again.samples[0].workload.hints == dataset().samples[0].workload.hints
    assert again.samples[0].provenance == dataset().samples[0].provenance
    assert again.models == dataset().models
    assert again.boundaries[0].tensor == dataset().boundaries[0].tensor


def test_models_from_before_there_were_devices_are_read(tmp_path):
    file = tmp_path / "old.jsonl.xz"
    write_archive(dataset(), file)
    write_lines(file, [line.replace('"copy_us":{},', "") for line in lines_of(file)])
    assert "copy_us" not in "".join(lines_of(file))
    again, skipped = read_archive(file)
    assert not skipped
    assert again.models == dataset().models


def test_equal_data_sets_give_equal_bytes(tmp_path):
    for name in "ab":
        write_archive(dataset(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"kind": "dream"}', '{"kind": "sample"}', '{"kind": "sample", "us": 1}']
)
def test_a_broken_line_is_skipped_and_counted(tmp_path, broken):
    file = tmp_path / "a.jsonl.xz"
    write_archive(dataset(), file)
    lines = lines_of(file)
    write_lines(file, [*lines[:4], broken, *lines[4:]])
    again, skipped = read_archive(file)
    assert len(again.samples) == len(dataset().samples)
    assert [part.count for part in skipped] == [1]
    assert skipped[0].reason


def test_what_refers_to_a_broken_workload_is_skipped_and_numbers_stay(tmp_path):
    file = tmp_path / "a.jsonl.xz"
    write_archive(dataset(), file)
    lines = lines_of(file)
    place = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "workload")
    broken = {**json.loads(lines[place]), "flops": "many"}
    write_lines(file, [*lines[:place], json.dumps(broken), *lines[place + 1 :]])
    again, skipped = read_archive(file)
    gone = json.loads(lines[place])["key"]
    assert {s.workload.key for s in again.samples} == {
        s.workload.key for s in dataset().samples
    } - {gone}
    assert sum(part.count for part in skipped) == 1 + 3


def test_a_truncated_file_gives_what_is_whole(tmp_path):
    file = tmp_path / "a.jsonl.xz"
    write_archive(dataset(), file)
    whole = file.read_bytes()
    for size in range(len(whole) - 1, 40, -97):
        file.write_bytes(whole[:size])
        with contextlib.suppress(LayoutselError):
            again, skipped = read_archive(file)
            assert skipped
            assert len(again.samples) <= len(dataset().samples)


@pytest.mark.parametrize("content", [b"", b"hello", lzma.compress(b"{}"), lzma.compress(b"")])
def test_what_is_no_data_set_is_one_error(tmp_path, content):
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(LayoutselError, match="expected a data set"):
        read_archive(file)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.jsonl.xz"
    write_archive(dataset(), file)
    before = file.read_bytes()
    bad = replace(dataset(), samples=(replace(dataset().samples[0], us=None),))
    with pytest.raises(TypeError):
        write_archive(bad, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_the_quietest_of_several_measurements_counts():
    first = samples(1)[0]
    noisy = replace(first, us=2 * first.us, spread_us=first.us)
    assert quietest([noisy, first]) == quietest([first, noisy]) == (first,)
