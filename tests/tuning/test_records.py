"""A database in any state is read as far as it goes, and what was skipped is counted by reason."""

from __future__ import annotations

import base64
import json

import pytest
import tvm

from layoutsel.tuning import lines as reasons
from layoutsel.tuning.database import open_database
from layoutsel.tuning.lines import RECORDS, WORKLOADS, Lines
from tests.tuning.conftest import LAYOUTS, TRIALS

ALL = len(LAYOUTS) * TRIALS


def read(folder) -> tuple[int, dict[str, int]]:
    """Number of timed schedules that are readable, and of skipped lines by reason."""
    lines = Lines(folder, tvm.__version__)
    return sum(bool(line.seconds) for line in lines.records), dict(lines.skipped)


def rewrite(file, change) -> None:
    """Let `change` edit the list of lines of a file."""
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("".join(line + "\n" for line in lines))


def replaced(number, text):
    """Put `text` in place of a line."""

    def change(lines):
        lines[number] = text

    return change


def edited(number, edit):
    """Let `edit` change the JSON of a line."""

    def change(lines):
        value = json.loads(lines[number])
        edit(value)
        lines[number] = json.dumps(value)

    return change


def test_records_tell_what_was_timed(tuned):
    records = Lines(tuned[0], tvm.__version__).records
    assert len(records) == ALL
    for record in records:
        assert len(record.seconds) == 3
        assert all(0 < second < 1 for second in record.seconds)
        assert record.target["kind"] == "llvm"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replaced(1, "{"), reasons.BROKEN),
        (replaced(1, ""), None),
        (replaced(1, "\x00\xff"), reasons.BROKEN),
        (replaced(1, "[" * 100_000), reasons.BROKEN),
        (replaced(1, "{}"), reasons.FORM),
        (replaced(1, "[0, [1, 2, 3]]"), reasons.FORM),
        (replaced(1, '[0, [[], [1.0], "llvm"]]'), reasons.FORM),
        (edited(1, lambda value: value[1].append("more")), reasons.FORM),
        (edited(1, lambda value: value.__setitem__(0, 99)), reasons.MISSING),
        (edited(1, lambda value: value.__setitem__(0, -1)), reasons.MISSING),
        (edited(1, lambda value: value[1].__setitem__(1, [1e10])), None),
        (edited(1, lambda value: value[1].__setitem__(1, None)), None),
        (edited(1, lambda value: value[1].__setitem__(1, [float("nan")])), reasons.TIMES),
        (edited(1, lambda value: value[1].__setitem__(1, ["soon"])), reasons.TIMES),
    ],
)
def test_a_bad_record_costs_itself_only(logs, change, reason):
    rewrite(logs / RECORDS, change)
    assert read(logs) == (ALL - 1, {reason: 1} if reason else {})
    assert open_database(logs).get_all_tuning_records()


def test_a_truncated_file_loses_its_last_line(logs):
    content = (logs / RECORDS).read_bytes()
    (logs / RECORDS).write_bytes(content[:-100])
    assert read(logs) == (ALL - 1, {reasons.TRUNCATED: 1})


def test_a_workload_of_an_unknown_version_is_told(logs, caplog):
    def version(value):
        encoded = base64.b64decode(value[1])
        graph = json.loads(encoded[encoded.index(b"{") :])
        graph["metadata"]["tvm_version"] = "0.9.dev0"
        value[1] = base64.b64encode(json.dumps(graph).encode()).decode()

    rewrite(logs / WORKLOADS, edited(0, version))
    count, skipped = read(logs)
    assert skipped[reasons.VERSION] == 1
    assert count + skipped[reasons.UNREADABLE] == ALL
    open_database(logs)
    assert f"1 × {reasons.VERSION}" in caplog.text
    assert "tune again with 'layoutsel tune'" in caplog.text


@pytest.mark.parametrize("text", ["{", '["1"]', '["1", "abc"]'])
def test_records_of_an_unreadable_workload_are_counted(logs, text):
    rewrite(logs / WORKLOADS, replaced(1, text))
    count, skipped = read(logs)
    assert 0 < count < ALL
    assert count + skipped[reasons.UNREADABLE] == ALL


def test_a_workload_that_tvm_cannot_parse_is_counted(logs, caplog):
    rewrite(logs / WORKLOADS, replaced(1, '["1", "e30="]'))
    assert len(open_database(logs).get_all_tuning_records()) == len(LAYOUTS) - 1
    assert "1 × line that TVM cannot parse" in caplog.text


def test_records_that_tvm_cannot_parse_are_counted(logs, caplog):
    rewrite(logs / RECORDS, lambda lines: [edited(n, _without_types)(lines) for n in range(ALL)])
    assert not open_database(logs).get_all_tuning_records()
    assert f"{len(LAYOUTS)} × line that TVM cannot parse" in caplog.text


def _without_types(value):
    value[1][3] = [1]


def test_missing_files_are_counted(logs, tmp_path):
    (logs / WORKLOADS).unlink()
    assert read(logs) == (0, {reasons.NO_FILE: 1, reasons.MISSING: ALL})
    assert read(tmp_path / "nowhere") == (0, {reasons.NO_FILE: 2})


def test_planning_warns_of_what_it_skips(logs, caplog):
    rewrite(logs / RECORDS, replaced(1, "{"))
    with caplog.at_level("WARNING"):
        open_database(logs)
    assert f"1 × {reasons.BROKEN}" in caplog.text
