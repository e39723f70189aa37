"""Curves and points on two axes, as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from layoutsel.core.files import WriteError
from layoutsel.report.curves import Series, write_curves

SVG = "{http://www.w3.org/2000/svg}"


def drawn(folder, *series, **options):
    file = folder / "curves.svg"
    write_curves(series, file, title="a < b", x="time", y="share", **options)
    return ET.parse(file).getroot()


def lines_of(root):
    """Points of the lines that are no grid, the legend's sample after each."""
    thick = [one for one in root.iter(f"{SVG}polyline") if one.get("stroke-width") == "2"]
    return [
        [tuple(map(float, pair.split(","))) for pair in one.get("points").split()] for one in thick
    ]


def test_points_keep_their_order_and_proportions(tmp_path):
    root = drawn(tmp_path, Series(name="one", points=((1.0, 0.0), (2.0, 0.5), (5.0, 1.0))))
    (first, second, third), _ = lines_of(root)
    assert (third[0] - second[0]) == pytest.approx(3 * (second[0] - first[0]), abs=0.2)
    assert (first[1] - second[1]) == pytest.approx(second[1] - third[1], abs=0.2)
    assert first[1] > third[1]  # larger values are further up


def test_equal_ratios_have_equal_distances_on_a_logarithmic_axis(tmp_path):
    points = ((0.03, 0.0), (0.3, 0.5), (30.0, 1.0))
    root = drawn(tmp_path, Series(name="one", points=points), log_x=True)
    (first, second, third), _ = lines_of(root)
    assert (third[0] - second[0]) == pytest.approx(2 * (second[0] - first[0]), abs=0.3)
    columns = {
        one.text: float(one.get("x"))
        for one in root.iter(f"{SVG}text")
        if one.get("text-anchor") == "middle"
    }
    assert list(columns) == ["0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20"]
    assert first[0] < columns["0.05"] < columns["0.2"] < second[0] < columns["0.5"]


def test_dots_have_labels(tmp_path):
    dots = Series(
        name="dots", points=((3.0, 0.9), (4.0, 0.8)), is_line=False, labels=("small", "large")
    )
    root = drawn(tmp_path, dots)
    first, second, _ = [float(one.get("cx")) for one in root.iter(f"{SVG}circle")]
    at = {one.text: float(one.get("x")) for one in root.iter(f"{SVG}text")}
    assert (at["small"], at["large"]) == (first, second)


def test_names_and_dots(tmp_path):
    dots = Series(name="static & small", points=((3.0, 0.9), (4.0, 0.8)), is_line=False)
    empty = Series(name="nothing", points=())
    root = drawn(tmp_path, Series(name="one", points=((1.0, 0.0), (2.0, 1.0))), dots, empty)
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert {"a < b", "time", "share", "one", "static & small"} <= set(texts)
    assert "nothing" not in texts
    assert len(list(root.iter(f"{SVG}circle"))) == 3  # one in the legend
    box = list(map(float, root.get("viewBox").split()))
    for one in root.iter(f"{SVG}circle"):
        assert 0 < float(one.get("cx")) < box[2]
        assert 0 < float(one.get("cy")) < box[3]


@pytest.mark.parametrize("points", [((2.0, 0.5),), ((2.0, 0.0), (2.0, 0.0)), ()])
def test_axes_without_extent(tmp_path, points):
    root = drawn(tmp_path, Series(name="one", points=points, is_line=False))
    assert len(list(root.iter(f"{SVG}circle"))) == (len(points) + 1 if points else 0)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(WriteError, match="none"):
        drawn(tmp_path / "none", Series(name="one", points=((1.0, 1.0),)))
