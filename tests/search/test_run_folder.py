"""Folders of searches: the same search goes on, another one is rejected."""

from __future__ import annotations

from dataclasses import replace

import pytest
from joint_spaces import SIGNALS
from test_search_deploying import NETWORK_OF_FOUR, PLACEMENT, question

from layoutsel.cluster.engine_times import EngineTimes
from layoutsel.cluster.statistics import Statistics
from layoutsel.search.found import FoundNetwork
from layoutsel.search.pictures import draw
from layoutsel.search.run_folder import (
    LOG,
    RunFolder,
    SearchQuestion,
    network_in,
    routes_of_question,
)
from tvm_passes.errors import LayoutselError


def found(number: int) -> FoundNetwork:
    return FoundNetwork(
        number=number,
        architecture=NETWORK_OF_FOUR,
        placement=PLACEMENT,
        sent=(),
        predicted_us=1e3 * (number + 1),
        spread_us=1.0,
        accuracies={"tune": 0.5},
    )


def test_the_same_search_goes_on(tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    run.log("query", accuracy=0.25, architecture=NETWORK_OF_FOUR)
    again = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    (event,) = again.events("query")
    assert event["architecture"]["channels"] == [12, 16]
    assert list(again.events("pass")) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, r"another seed.*at \$, 0 there and 1 here"),
        (
            {"space": replace(SIGNALS, stem_channels=12)},
            r"another space.*at \$\.stem_channels, 8 there and 12 here",
        ),
        ({"settings": {"queries": 9.0}}, r"another settings.*at \$\.queries, None there and 9.0"),
        ({"statistics": Statistics()}, r"another statistics.*at \$\.nodes, "),
    ],
)
def test_another_search_is_rejected(tmp_path, change, told):
    RunFolder.begin(tmp_path, question(), tmp_path)
    with pytest.raises(LayoutselError, match=told):
        RunFolder.begin(tmp_path, replace(question(), **change), tmp_path)


def test_a_search_goes_on_with_the_engine_as_it_was_measured_before(tmp_path):
    before = replace(question(), engine=EngineTimes(request_us=100.0))
    RunFolder.begin(tmp_path, before, tmp_path)
    run = RunFolder.begin(tmp_path, question(), tmp_path)
    assert run.question == before
    assert routes_of_question(run.question).engine.request_us == 100.0


def test_an_engine_of_negative_time_is_named():
    wrong = replace(question(), engine=EngineTimes(call_us=-1.0))
    (fault,) = wrong.faults()
    assert fault == ("$.engine.call_us", "-1", "0 or more")


def test_a_folder_with_other_files_is_not_written_to(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(LayoutselError, match="got a folder with other files"):
        RunFolder.begin(tmp_path, question(), tmp_path)


def test_machine_files_come_along(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "fast.json").write_text("{}")
    run = RunFolder.begin(tmp_path / "run", question("far/fast.json"), tmp_path)
    assert run.question.topology.by_id["hub"].machine == "machines/fast.json"
    assert (run.path / "machines" / "fast.json").read_text() == "{}"
    RunFolder.begin(tmp_path / "run", question("far/fast.json"), tmp_path)


def test_an_unfinished_line_of_the_log_is_dropped(tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    run.log("query", accuracy=0.25)
    with (run.path / LOG).open("a") as stream:
        stream.write('{"event": "que')
    assert len(list(run.events())) == 1
    with run.reserved():
        run.log("query", accuracy=0.5)
    assert [event["accuracy"] for event in run.events("query")] == [0.25, 0.5]


def test_a_broken_line_of_the_log_is_named(tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    (run.path / LOG).write_text('{"event": "query"}\n[1]\n')
    with pytest.raises(LayoutselError, match=r"log\.jsonl, line 2: at \$: got \[1\]"):
        list(run.events())


def test_a_log_that_is_no_text_is_named(tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    (run.path / LOG).write_bytes(b"\xff\xfe\n")
    with pytest.raises(LayoutselError, match=r"log\.jsonl.*expected a readable UTF-8 file"):
        list(run.events())
    with pytest.raises(LayoutselError, match=r"log\.jsonl"), run.reserved():
        pass


def test_values_of_events_are_checked(tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    run.log("round", queries=1, hypervolume="much")
    with pytest.raises(LayoutselError, match=r"log\.jsonl, line 1: at \$\.hypervolume: got .much"):
        draw(run)


def test_one_process_searches_in_a_folder(tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    again = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    with run.reserved():
        with pytest.raises(LayoutselError, match="another process searches in this folder"):
            again.reserved().__enter__()
        run.log("pass")
    with again.reserved():
        assert len(list(again.events("pass"))) == 1


def test_found_networks_are_listed_in_order(tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    for number in (10, 2, 1):
        run.keep(found(number))
    assert [one.number for one in run.found()] == [1, 2, 10]
    assert network_in(run.path / "2")[1] == found(2)


def test_a_missing_network_names_those_that_there_are(tmp_path):
    run = RunFolder.begin(tmp_path / "run", question(), tmp_path)
    run.keep(found(1))
    with pytest.raises(LayoutselError, match=r"run/7: got no found network; expected one of .*/1$"):
        network_in(run.path / "7")
    with pytest.raises(LayoutselError, match=r"got no search\.json"):
        network_in(tmp_path / "elsewhere" / "3")


def test_the_question_survives_its_file(tmp_path):
    file = tmp_path / "search.json"
    question().save(file)
    assert SearchQuestion.load(file) == question()
