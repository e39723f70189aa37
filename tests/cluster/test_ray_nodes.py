"""Ray on two emulated nodes: equal results, refused nodes, and faults in the middle of a stream."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest
from divided import network, plan_in_atoms

import layoutsel

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]
NODES = pytest.importorskip("cluster.nodes", reason="the benches are not on the path")
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install 'layoutsel[cluster]'", allow_module_level=True)
if reason := NODES.why_not():
    pytest.skip(reason, allow_module_level=True)

PROGRAM = Path(__file__).with_name("ray_scenarios.py")
FOLDERS = (PROGRAM.parent, PROGRAM.parents[1])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    compiled = layoutsel.compile_plan(network(), plan_in_atoms(network()))
    return compiled.save(tmp_path_factory.mktemp("atoms") / "model.so")


@pytest.fixture(scope="module")
def scenario(model):
    from cluster.ray_nodes import acts, converse, ray_nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, FOLDERS)))
        with ray_nodes() as emulation:
            yield lambda name: converse(
                emulation.nodes[0], [PROGRAM, name, model], acts(emulation), 400
            )


def test_results_are_those_of_the_whole_model(scenario):
    found = scenario("equal")
    assert found["answers"] == 40
    assert found["nodes"] == ["edge", "srv"]
    assert found["rows"] == [
        "link edge → srv",
        "link srv → edge",
        "node edge",
        "node srv",
        "requests",
    ]


def test_wrong_files_and_absent_nodes_are_refused_by_name(scenario):
    digest, absent = scenario("refused")
    assert digest.startswith("NodeRefused: node 'srv': the artifact that arrived has the SHA-256")
    assert absent.startswith("NodeLost: node 'moon' is lost: no answer within 3 s")


def test_no_fault_loses_a_request(scenario):
    """Results are compared where they arrive: a wrong one would end the scenario."""
    found = scenario("faults")
    assert set(found) == {"kill worker srv", "cut", "kill node"}
    for fault, outcome in found.items():
        assert outcome["answers"] == 60, fault
        assert outcome["counts"]["replays"] > 0, fault
        assert "failures" not in outcome["counts"], fault
        assert outcome["returned"], fault


def test_nothing_is_left_over(scenario):
    """The emulation ends all processes of its nodes, however they were started."""
    from cluster.nodes import emulated

    with emulated(("one", "two")) as emulation:
        node = emulation.nodes[0]
        node.popen(
            ["sh", "-c", "setsid sleep 600 & echo begun; sleep 600"], stdout=PIPE
        ).stdout.readline()
        home = node.processes()
    assert len(home) >= 4
    _, left = psutil.wait_procs(home, timeout=20)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
