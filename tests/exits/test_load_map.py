"""Maps of arrangements over loads."""

from __future__ import annotations

from xml.etree import ElementTree

from test_load_table import two_core_problem

from layoutsel.exits.explain import workers_text
from layoutsel.exits.load_map import map_table, write_load_map
from layoutsel.exits.planner import plan_exits

SVG = "{http://www.w3.org/2000/svg}"


def test_every_cell_has_its_arrangement_and_time(tmp_path):
    table = map_table(plan_exits(two_core_problem()))
    write_load_map(table, tmp_path / "a.svg", title="net")
    tree = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    texts = [one.text for one in tree.iter(f"{SVG}text")]
    _, *boxes = [one.get("fill") for one in tree.iter(f"{SVG}rect")]
    cells, legend = boxes[: table.grid.cells], boxes[table.grid.cells :]
    assert [text for text in texts if text.endswith(" ms")] == [
        f"{table.values_us[cell, chosen] / 1e3:.3f} ms" for cell, chosen in enumerate(table.chosen)
    ]
    names = [text.partition(": ")[2] for text in texts if text.startswith("workers of trunk")]
    colour_of = dict(zip(names, legend, strict=True))
    assert cells == [colour_of[workers_text(table.arrangements[one])] for one in table.chosen]
    # Two threads on idle cores are faster here, and slower beside other work.
    assert len(set(cells)) > 1
