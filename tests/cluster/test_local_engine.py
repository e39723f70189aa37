"""Segments on threads of this process: any division of a network gives the result of the whole."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from divided import image, network, plan_in_atoms, segments

import layoutsel
from layoutsel.cluster.crossing import CrossingError
from layoutsel.cluster.engine import Announced, NodeLost, NodeRefused, Work
from layoutsel.cluster.local_engine import LocalEngine
from layoutsel.errors import WorkerClosed

LIMIT_S = 60


@pytest.fixture
def engine(artifact):
    engine = LocalEngine({"edge": 1, "srv": 1})
    for node in engine.nodes():
        engine.load(node, artifact, LIMIT_S)
    yield engine
    engine.close()


def work_of(segment) -> Work:
    return Work(segment=segment.id, node=segment.node, atoms=segment.atoms, outputs=segment.outputs)


def run(engine, parts, x: np.ndarray) -> np.ndarray:
    refs = dict(engine.put({"input.0": x}))
    for segment in parts:
        started = engine.start(work_of(segment), {name: refs[name] for name in segment.inputs})
        times = started.times.result(LIMIT_S)
        assert times.compute_us > 0
        assert set(started.outputs) == set(segment.outputs)
        refs.update(started.outputs)
    return engine.fetch({"output.0": refs["output.0"]}).result(LIMIT_S)["output.0"]


def test_every_division_equals_the_whole(compiled, engine):
    stages = plan_in_atoms(network()).stages
    assert len(stages) == 4
    for seed, nodes in enumerate(product(("edge", "srv"), repeat=len(stages))):
        x = image(seed)
        np.testing.assert_array_equal(run(engine, segments(stages, nodes), x), compiled(x))


def test_a_file_that_was_not_announced_is_refused(artifact, tmp_path):
    other = tmp_path / "other.so"
    other.write_bytes(artifact.path.read_bytes() + b"x")
    engine = LocalEngine({"edge": 1})
    with pytest.raises(NodeRefused, match=r"node 'edge': .*other.so has the SHA-256"):
        engine.load("edge", Announced(path=other, sha256=artifact.sha256), LIMIT_S)


def test_a_node_without_an_artifact_runs_nothing(engine):
    stages = plan_in_atoms(network()).stages
    (whole,) = segments(stages, ["other"] * len(stages))
    with pytest.raises(NodeLost, match="node 'other' is lost"):
        engine.start(work_of(whole), engine.put({"input.0": image()})).times.result(LIMIT_S)


def test_a_wrong_tensor_is_named_with_segment_and_node(engine):
    stages = plan_in_atoms(network()).stages
    (whole,) = segments(stages, ["srv"] * len(stages))
    inputs = engine.put({"input.0": image()[:, :4]})
    with pytest.raises(
        CrossingError, match=r"segment 's0 on node srv': tensor input.0: got float32"
    ):
        engine.start(work_of(whole), inputs).times.result(LIMIT_S)


def test_nothing_to_fetch_is_nothing(engine):
    assert engine.fetch({}).result(LIMIT_S) == {}


def test_a_closed_engine_ends_what_is_asked_of_it(engine):
    (whole,) = segments(plan_in_atoms(network()).stages, 4 * ["srv"])
    inputs = engine.put({"input.0": image()})
    engine.close()
    with pytest.raises(WorkerClosed):
        engine.start(work_of(whole), inputs).times.result(LIMIT_S)


def test_nodes_that_load_at_once_share_the_model(artifact):
    engine = LocalEngine(dict.fromkeys("abcd", 1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda node: engine.load(node, artifact, LIMIT_S), "abcd"))
    programs = {one.runner._worker._program.module for one in engine._loaded.values()}
    engine.close()
    assert len(programs) == 1


def test_an_artifact_that_no_node_has_any_more_is_closed(artifact, tmp_path):
    """Nodes share an artifact: it stays as long as one of them has it."""
    shorter = layoutsel.compile_plan(network(3), plan_in_atoms(network(3)))
    other = Announced.of(shorter.save(tmp_path / "other.so"))
    engine = LocalEngine({"edge": 1, "srv": 1})
    for node in engine.nodes():
        engine.load(node, artifact, LIMIT_S)
    first = weakref.ref(engine._loaded["edge"].model)
    assert engine._loaded["srv"].model is first()
    engine.load("edge", other, LIMIT_S)
    assert first() is not None
    engine.load("srv", other, LIMIT_S)
    gc.collect()
    assert first() is None
    (whole,) = segments(plan_in_atoms(network(3)).stages, 3 * ["srv"])
    np.testing.assert_array_equal(run(engine, [whole], image()), shorter(image()))
    engine.close()
