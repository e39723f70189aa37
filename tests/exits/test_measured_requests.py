"""Measured requests in charts."""

from __future__ import annotations

import re
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from exit_models import expected, images, network, policy_of, started

from layoutsel.exits.exit_gantt import measured_requests, write_exit_gantt
from layoutsel.exits.samples import Samples

NAME = "chain"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("workers", ["aaa", "abb"])
def test_one_with_an_early_answer_and_one_without(workers, tmp_path, slow):
    # The trunk alone takes less time than a hand-over to another worker.
    slow(lambda stage: time.sleep(0.05) if stage == "trunk2" else None)
    inputs = images(NAME, 12)
    exits = network(NAME).names
    middle = float(np.median([expected(NAME, x)[0][1] for x in inputs]))
    samples = Samples(inputs=tuple([x] for x in inputs), labels=None)
    with started(NAME, workers, policy_of(middle, None)) as model:
        found = list(measured_requests(model, samples))
    assert [one.name for one in found] == ["early", "late"]
    early, late = found
    assert (exits[early.exit], exits[late.exit]) == (exits[0], "final")
    for one in found:
        assert 0 < min(run.start_us for run in one.runs) < one.answer_us
    if workers == "aaa":  # nothing runs after the answer
        assert {run.name for run in early.runs} == {"trunk0", "branch0"}
    assert {"trunk0", "trunk1", "trunk2"} <= {run.name for run in late.runs}
    write_exit_gantt(found, exits, tmp_path / "a.svg", title="chain")
    tree = ElementTree.parse(tmp_path / "a.svg")
    answers = [one.text for one in tree.iter(f"{SVG}text") if "answers at" in (one.text or "")]
    assert [re.sub(r" at .*", "", text) for text in answers] == [
        f"{exits[0]} answers",
        "final answers",
    ]
