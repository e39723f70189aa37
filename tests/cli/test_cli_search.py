"""``layoutsel search``, run as a user does: searches in small, deployment, and bad input."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import time

import numpy as np
import pytest
from command import COMMAND, refused, run_here, succeed

from layoutsel.core.exit_codes import INTERRUPTED
from layoutsel.search.found import FoundNetwork
from layoutsel.search.run_folder import QUESTION
from tests.search.tables import small_table

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (extra train)"
)
TOPOLOGY = {
    "directed": False,
    "multigraph": False,
    "graph": {"schema_version": 1, "origin": "edge"},
    "nodes": [{"id": "edge", "threads": 1}, {"id": "hub", "threads": 1}],
    "links": [{"source": "edge", "target": "hub", "gbps": 0.02, "rtt_us": 5000}],
}
SPACE = {
    "schema_version": 1,
    "data": "mnist1d",
    "input_shape": [1, 1, 40],
    "classes": 10,
    "stem_channels": 8,
    "cells": [
        {"name": "a", "channels": [8, 12], "operations": ["conv3", "skip"]},
        {"name": "b", "channels": [12, 16], "operations": ["conv3", "conv5"], "stride": [1, 2]},
    ],
}
LINK = ("--link", "20Mbit/s,5ms")


@pytest.fixture
def files(tmp_path):
    """Writes topology and space with changes; returns the options of ``search joint``."""

    def write(space=None, **topology):
        (tmp_path / "net.json").write_text(json.dumps({**TOPOLOGY, **topology}))
        (tmp_path / "space.json").write_text(json.dumps({**SPACE, **(space or {})}))
        files = ("--topology", tmp_path / "net.json", "--space", tmp_path / "space.json")
        return (*files, "-o", tmp_path / "run", "--cost", "roofline")

    return write


SMALL = ("--queries", 8, "--networks", 2, "--epochs", 1, "--retrain-epochs", 1)


@needs_torch
def test_a_joint_search_is_shown_drawn_and_deployed(files, tmp_path):
    done = run_here("search", "joint", *files(), *SMALL)
    assert done.returncode == 0, done.stderr
    assert "training common weights of 12 networks" in done.stderr
    networks = json.loads(succeed("search", "show", tmp_path / "run", "--json"))
    first = FoundNetwork.read(networks[0])
    assert set(first.accuracies) == {"shared", "tune", "test"}
    text = succeed(
        "search", "deploy", tmp_path / "run" / "0", "--requests", 3, "--cost", "roofline"
    )
    assert "measured" in text
    assert "relative error of the outputs" in text
    succeed("search", "show", tmp_path / "run", "--svg")
    drawn = {file.name for file in (tmp_path / "run").glob("**/*.svg")}
    assert drawn == {"front.svg", "network.svg", "bandwidth.svg", "hypervolume.svg"}
    again = run_here("search", "joint", *files(), *SMALL)
    assert again.returncode == 0
    assert "asked" not in again.stderr  # all answers are in the log
    assert FoundNetwork.load(tmp_path / "run" / "0" / "found.json").measured
    assert "another seed" in refused("search", "joint", *files(), *SMALL, "--seed", 1)


@needs_torch
@pytest.mark.nightly
def test_a_search_for_two_devices_is_deployed(files, tmp_path):
    files()
    links = ("--link", "wifi=20Mbit/s,5ms", "--link", "cell=80Mbit/s,30ms")
    options = (*links, "--space", tmp_path / "space.json", "--cost", "roofline")
    short = ("--epochs", 1, "--sweep-epochs", 1, "--drawn", 0, "--retrain-epochs", 1)
    succeed("search", "offload", *options, "-o", tmp_path / "run", *short)
    folder = tmp_path / "run" / "0"
    assert {"first.onnx", "second.onnx", "network.onnx"} <= {one.name for one in folder.iterdir()}
    assert FoundNetwork.load(folder / "found.json").link in ("wifi", "cell")
    text = succeed("search", "deploy", folder, "--requests", 3, "--cost", "roofline")
    assert "measured" in text
    succeed("search", "show", tmp_path / "run", "--svg")
    assert (tmp_path / "run" / "gates.svg").exists()


@pytest.mark.parametrize(
    ("space", "topology", "options", "told"),
    [
        ({}, {}, ("--max-latency", "soon"), "--max-latency soon: expected a time above 0"),
        ({}, {}, ("--objective", "training"), "--objective training: expected one of inference"),
        ({}, {}, ("--networks", "99"), "--networks 99: expected at most the 60 of --queries"),
        (
            {"cells": [{"name": "a", "channels": [8], "operations": ["conv7"]}]},
            {},
            (),
            r"space.json: at $.cells[0].operations[0]: got 'conv7'; expected one of none, skip",
        ),
        ({"classes": 2}, {}, (), "space for 'mnist1d': got inputs [1, 1, 40] and 2 classes"),
        ({"data": "cifar"}, {}, (), "data set 'cifar': expected one of"),
        (
            {},
            {"links": [{"source": "edge", "target": "hub", "gbps": 0, "rtt_us": 1}]},
            (),
            "net.json: at $.links[0].gbps: got 0.0; expected a rate above 0",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_questions_are_refused_before_any_price(files, space, topology, options, told):
    assert told in refused("search", "joint", *files(space, **topology), *options)


@needs_torch
@pytest.mark.parametrize(
    ("topology", "options", "told"),
    [
        ({}, ("--max-latency", "1us"), "no network takes at most 1 us: the fastest"),
        (
            {"nodes": [{"id": "edge", "memory_bytes": 100}, {"id": "hub", "memory_bytes": 100}]},
            (),
            "no network fits the memory of",
        ),
    ],
    ids=["latency", "memory"],
)
def test_limits_that_nothing_keeps_are_refused_before_any_training(files, topology, options, told):
    assert told in refused("search", "joint", *files(**topology), *options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--link", "0Mbit/s,5ms"), "--link 0Mbit/s,5ms: expected a rate above 0"),
        ((*LINK, "--link", "a=2Mbit/s,5ms"), "--link 20Mbit/s,5ms: expected a name of its own"),
        ((*LINK, "--max-bytes", "few"), "--max-bytes few: expected a size above 0"),
        ((*LINK, "--precisions", "int4"), "precision 'int4': expected one of float32"),
        ((*LINK, "--data", "cifar"), "data set 'cifar': expected one of"),
        ((*LINK, "--device", "none.json"), "none.json"),
    ],
)
def test_bad_links_and_devices_are_refused(options, told, tmp_path):
    assert told in refused("search", "offload", *options, "-o", tmp_path / "run")


def test_a_folder_of_no_search_is_refused(tmp_path):
    assert f"got no {QUESTION}" in refused("search", "show", tmp_path)
    assert f"got no {QUESTION}" in refused("search", "deploy", tmp_path / "3")


def table_file(file):
    """Write the small table of the tests of tables as those of NAS-Bench-201 are."""
    table = small_table()
    names = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    texts = []
    for code in table.codes:
        a, b, c, d, e, f = (names[one] for one in code)
        texts.append(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|")
    accuracies, us = table.accuracies["data"], table.latencies_us["device"]
    np.savez(file, architecture=texts, cifar10=100 * accuracies, latency_phone=us / 1e3)
    return file


def test_a_table_is_searched_and_a_bad_one_refused(tmp_path):
    file = table_file(tmp_path / "table.npz")
    task = ("--devices", "phone", "--data", "cifar10")
    options = ("--budget", 20, "--seeds", 1, "--methods", "surrogate,random")
    found = json.loads(succeed("search", "bench", "--table", file, *options, *task, "--json"))
    assert [one["method"] for one in found] == ["surrogate", "random"]
    assert "unknown: expected some of surrogate" in refused(
        "search", "bench", "--table", file, "--methods", "unknown"
    )
    assert "no-such.npz" in refused("search", "bench", "--table", tmp_path / "no-such.npz")


@needs_torch
@pytest.mark.nightly
def test_an_interrupted_search_goes_on_where_it_ended(files, tmp_path):
    words = map(str, ("search", "joint", *files(), *SMALL[:4], "--epochs", 500))
    command = [*COMMAND, *words]
    log = tmp_path / "run" / "log.jsonl"

    def interrupted_after(passes: int) -> str:
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + 120
            while not log.exists() or len(log.read_text().splitlines()) < passes:
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == INTERRUPTED
        return errors

    assert "interrupted" in interrupted_after(2).splitlines()[-1]
    first = log.read_text().splitlines()
    interrupted_after(len(first) + 2)
    epochs = [json.loads(line)["report"]["epoch"] for line in log.read_text().splitlines()]
    # A pass whose state was saved may lack its line.
    assert epochs == sorted(set(epochs))
    assert epochs[: len(first)] == list(range(1, len(first) + 1))
