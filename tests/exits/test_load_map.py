"""Maps of arrangements over loads."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from test_load_table import two_core_problem

from layoutsel.exits.explain import workers_text
from layoutsel.exits.load_aware_building import table_for
from layoutsel.exits.load_map import HARD, map_tables, write_load_map
from layoutsel.exits.planner import plan_exits

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plan():
    return plan_exits(two_core_problem())


def test_requests_without_a_sure_exit_are_weighed(plan):
    tables = map_tables(plan)
    assert tuple(tables) == HARD
    best_us = np.array([table.values_us.min(axis=1) for table in tables.values()])
    assert (np.diff(best_us, axis=0) >= -1e-9).all()
    assert not any(tables[1.0].arrangements[one].branches[0] for one in tables[1.0].chosen)
    known = table_for(plan).values_us.min(axis=1)
    low, high = tables[0.0].values_us.min(axis=1), tables[0.5].values_us.min(axis=1)
    assert (low < known).all()
    assert (known < high).all()


def test_every_cell_has_its_arrangement_and_time(plan, tmp_path):
    tables = map_tables(plan)
    write_load_map(tables, tmp_path / "a.svg", title="net")
    tree = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    texts = [one.text for one in tree.iter(f"{SVG}text")]
    every = [
        (table, cell, chosen)
        for table in tables.values()
        for cell, chosen in enumerate(table.chosen)
    ]
    assert [text for text in texts if text.endswith(" ms")] == [
        f"{table.values_us[cell, chosen] / 1e3:.3f} ms" for table, cell, chosen in every
    ]
    _, *boxes = [one.get("fill") for one in tree.iter(f"{SVG}rect")]
    names = [text.partition(": ")[2] for text in texts if text.startswith("workers of trunk")]
    colour_of = dict(zip(names, boxes[len(every) :], strict=True))
    assert len(set(colour_of.values())) == len(names) > 1
    assert boxes[: len(every)] == [
        colour_of[workers_text(table.arrangements[chosen])] for table, _, chosen in every
    ]
