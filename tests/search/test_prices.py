"""Prices of parts: those of the compiler, from a catalogue with one branch for each part."""

from dataclasses import replace

import numpy as np
import pytest
from onnxruntime import InferenceSession

from layoutsel.cluster.classes import MachineClass, machine_classes, problem_of_class
from layoutsel.compile.options import Options
from layoutsel.documents import DocumentError
from layoutsel.planning.objectives import decide
from layoutsel.search.networks import write_catalogue, write_network
from layoutsel.search.parts import HEAD, SUM, PartSignature, parts_of, signatures_of
from layoutsel.search.prices import ClassPrices, PriceTable, branches_of, price_parts
from layoutsel.search.slack import slack_of
from layoutsel.search.space import Cell
from tests.cluster.clusters import star
from tests.search.spaces import cells_space

ROOFLINE = Options(cost="roofline")


def here() -> MachineClass:
    (one,) = machine_classes(star(2), folder=None)
    return one


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return price_parts(signatures_of(cells_space()), [here()], ROOFLINE)


def test_every_part_of_a_space_has_a_price(table):
    known = table.classes["here"]
    assert set(known.us) == set(known.spread_us) == set(map(str, signatures_of(cells_space())))
    assert min(known.us.values()) > 0


def test_a_branch_costs_what_its_model_alone_costs(table):
    for signature in signatures_of(cells_space())[::7]:
        _, problem = problem_of_class(write_catalogue([signature]), here(), ROOFLINE)
        (branch,) = branches_of(problem, [signature])
        assert {node.id for node in branch.nodes} == {node.id for node in problem.nodes}
        found = decide(branch).solution
        assert branch.cost(found.decisions).total_us == pytest.approx(table.us(signature, "here"))


def test_branches_divide_the_catalogue():
    signatures = signatures_of(cells_space())
    _, problem = problem_of_class(write_catalogue(signatures), here(), ROOFLINE)
    branches = list(branches_of(problem, signatures))
    ids = [node.id for branch in branches for node in branch.nodes]
    assert sorted(ids) == sorted(node.id for node in problem.nodes)
    for signature, branch in zip(signatures, branches, strict=True):
        operators = {name for node in branch.nodes for name in node.operators}
        assert any("conv2d" in name for name in operators) == signature.operation.startswith(
            ("conv", "separable")
        )


def test_small_catalogues_price_as_one_large_one_does(table):
    signatures = signatures_of(cells_space())
    portioned = price_parts(signatures, [here()], ROOFLINE, network_bytes=1.0)
    assert portioned.classes["here"].us == pytest.approx(table.classes["here"].us)


def test_tables_are_documents_without_negative_prices(table, tmp_path):
    table.save(tmp_path / "prices.json")
    assert PriceTable.load(tmp_path / "prices.json") == table
    bad = PriceTable(classes={"a": ClassPrices(us={"x": -1.0}, spread_us={"x": 0.0})})
    with pytest.raises(DocumentError, match=r"\$\.classes\.a\.us\.x: got -1; expected 0 or more"):
        bad.check()
    merged = table.merged(
        PriceTable(classes={"a": ClassPrices(us={"x": 1.0}, spread_us={"x": 0.0})})
    )
    assert set(merged.classes) == {"here", "a"}


def test_networks_compute_what_their_parts_do():
    space = cells_space(3)
    random = np.random.default_rng(0)
    for seed in range(10):
        graph = parts_of(space, space.draw(random))
        model = write_network(graph, seed=seed)
        x = random.standard_normal((1, *space.input_shape)).astype(np.float32)
        (found,) = InferenceSession(model.SerializeToString()).run(None, {"x": x})
        assert found.shape == (1, space.classes)
        held = sum(int(np.prod(one.dims)) for one in model.graph.initializer)
        assert 4 * held == sum(part.signature.weight_bytes for part in graph.parts)


def test_the_plan_of_a_network_costs_about_the_sum_of_its_parts(table):
    space = cells_space()
    random = np.random.default_rng(1)
    gains = [
        slack_of(parts_of(space, space.draw(random)), table, here(), ROOFLINE).gain
        for _ in range(3)
    ]
    assert max(map(abs, gains)) < 0.5


def test_wide_images_have_square_kernels_and_signals_flat_ones():
    image = PartSignature(operation="conv5", input_shape=(2, 9, 9), channels=3)
    signal = replace(image, input_shape=(2, 1, 9))
    assert image.weight_bytes == 4 * 3 * (2 * 25 + 1)
    assert signal.weight_bytes == 4 * 3 * (2 * 5 + 1)
    assert (
        PartSignature(operation=SUM, input_shape=(2, 9, 9), channels=2, inputs=3).weight_bytes == 0
    )
    assert PartSignature(operation=HEAD, input_shape=(2, 9, 9), channels=7).output_shape == (
        7,
        1,
        1,
    )


def test_cells_list_their_parts_once():
    space = cells_space(2)
    assert len(signatures_of(space)) == len(set(map(str, signatures_of(space))))
    one = replace(space, cells=(Cell(name="a", channels=(8,), operations=("conv1",)),))
    assert len(signatures_of(one)) == 3
