"""Search spaces: counted, drawn, checked and read strictly."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from layoutsel import documents
from layoutsel.documents import DocumentError
from layoutsel.search.parts import parts_of, signatures_of
from layoutsel.search.space import Architecture, Cell, IllegalArchitecture, Space
from tests.search.spaces import cells_space, chain_space


def test_every_network_is_counted_and_legal():
    space = cells_space()
    networks = list(space.architectures())
    assert len(set(networks)) == len(networks) == space.size
    for network in networks[::97]:
        space.check_architecture(network)


def test_networks_are_drawn_uniformly():
    space = chain_space(1, ("skip", "conv3", "max3"), widths=(8, 16))
    random = np.random.default_rng(0)
    drawn = Counter(space.draw(random) for _ in range(4000))
    assert len(drawn) == space.size == 4
    assert max(drawn.values()) < 1.15 * min(drawn.values())


def test_a_space_of_many_layers_is_counted_without_enumeration():
    space = chain_space(60, ("conv1", "conv3", "skip"), widths=(8, 16))
    # Layer 1 has a stride, so that it cannot skip; others skip only if channels stay.
    assert space.size > 2**60
    space.check_architecture(space.draw(np.random.default_rng(1)))


def test_shapes_of_parts_fit_their_neighbours():
    space = cells_space(nodes=3)
    random = np.random.default_rng(2)
    known = set(signatures_of(space))
    for _ in range(50):
        graph = parts_of(space, space.draw(random))
        for part in graph.parts:
            assert part.signature in known
            assert len(part.inputs) == part.signature.inputs
            for tensor in part.inputs:
                assert graph.shape(tensor) == part.signature.input_shape
        read = {tensor for part in graph.parts for tensor in part.inputs}
        assert "input" in read
        # Each part but the last is read, unless every operation on its node is none.
        unread = {part.name for part in graph.parts[:-1]} - read
        assert all(name.partition(".")[0] in "ab" for name in unread)


def test_spaces_and_architectures_are_documents(tmp_path):
    space = cells_space()
    space.save(tmp_path / "space.json")
    assert Space.load(tmp_path / "space.json") == space
    network = space.draw(np.random.default_rng(3))
    network.save(tmp_path / "network.json")
    assert Architecture.load(tmp_path / "network.json") == network


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": ["conv7"]}, r"\$\.cells\[0\]\.operations\[0\]: got 'conv7'; expected one of none"),
        ({"channels": []}, r"\$\.cells\[0\]\.channels: got \[\]"),
        ({"stride": [1]}, r"\$\.cells\[0\]\.stride"),
        ({"nodes": 0}, r"\$\.cells\[0\]\.nodes: got 0"),
        ({"operations": ["none"]}, r"cells without any network"),
        ({"operations": ["skip"], "channels": [9]}, r"cells without any network"),
        ({"name": "b"}, r"\$\.cells\[1\]\.name: got 'b'; expected a name of its own"),
    ],
)  # fmt: skip
def test_a_bad_space_is_one_error(change, message):
    document = documents.to_json(cells_space())
    document["cells"][0] |= change
    with pytest.raises(DocumentError, match=message):
        Space.read(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (8,)}, "channels of 1 cells: the space has 2"),
        ({"channels": (9, 16)}, "cell 'a' with 9 channels: expected one of 8, 12"),
        ({"operations": (("conv1",), ("conv1",) * 3)}, "cell 'a' with 1 operations: expected 3"),
        ({"operations": (("none",) * 3, ("conv1",) * 3)}, "operation 'none' from node 0 to node 1"),
        ({"operations": (("conv1",) * 3, ("skip",) * 3)}, "operation 'skip' from node 0 to node 1"),
    ],
)
def test_an_architecture_of_another_space_is_rejected(change, message):
    network = Architecture(channels=(8, 16), operations=(("conv1",) * 3, ("conv1",) * 3))
    cells_space().check_architecture(network)
    with pytest.raises(IllegalArchitecture, match=message):
        cells_space().check_architecture(replace(network, **change))


def test_a_cell_offers_none_only_where_a_node_keeps_an_input():
    cell = Cell(name="c", channels=(8,), operations=("none", "conv1"), nodes=3)
    offered = {pair: cell.offered(pair, (8, 1, 40), 8) for pair in cell.pairs}
    with_none = {pair for pair, names in offered.items() if "none" in names}
    assert with_none == {(0, 2), (0, 3), (1, 3)}
