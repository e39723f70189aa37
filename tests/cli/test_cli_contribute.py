"""profile --contribute: a machine's own log, within its time, of standard networks alone."""

from __future__ import annotations

import pytest
from command import refused, succeed

from layoutsel.cost.archive import read_archive
from layoutsel.device.machine import this_machine


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("light:squeezenet",), "takes no MODEL, --sweep or --import"),
        (("--sweep", "4"), "takes no MODEL, --sweep or --import"),
        (("--budget", "soon"), "expected seconds or minutes"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, said):
    assert said in refused("profile", "--contribute", tmp_path / "log.jsonl.xz", *arguments)
    assert not list(tmp_path.iterdir())


def test_no_time_is_one_line(tmp_path):
    said = refused(
        *("profile", "--contribute", tmp_path / "log.jsonl.xz", "--budget", "0s"),
        *("--cache", tmp_path / "log.sqlite"),
    )
    assert "nothing was measured in 0 s" in said
    assert not (tmp_path / "log.jsonl.xz").exists()


def test_a_file_that_is_no_log_is_refused_before_measuring(tmp_path):
    file = tmp_path / "mine.jsonl.xz"
    file.write_text("mine")
    cache = tmp_path / "log.sqlite"
    said = refused("profile", "--contribute", file, "--budget", "20m", "--cache", cache)
    assert "not a log" in said
    assert file.read_text() == "mine"
    assert not cache.exists()


@pytest.mark.nightly
def test_a_contribution_names_the_machine_and_continues(tmp_path):
    cache = tmp_path / "log.sqlite"
    arguments = ("profile", "--contribute", tmp_path, "--budget", "12s", "--cache", cache)
    succeed(*arguments, "--threads", 1)
    (file,) = tmp_path.glob("*.jsonl.xz")
    assert file.name == f"measurements-{this_machine().fingerprint}-1.jsonl.xz"
    first, skipped = read_archive(file)
    assert not skipped
    assert first.samples
    assert {sample.provenance.profile.peaks.threads for sample in first.samples} == {1}
    succeed(*arguments, "--threads", 1)
    last = read_archive(file)[0]
    assert len(last.samples) > len(first.samples)
    succeed(*arguments[:-1], tmp_path / "other.sqlite", "--threads", 1)
    kept = {(s.workload.key, s.decision) for s in read_archive(file)[0].samples}
    assert kept >= {(s.workload.key, s.decision) for s in last.samples}, "an empty cache lost data"
