"""A compiled model refuses indices that ONNX Runtime refuses, wherever it runs; checked before anything is computed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import helper
from typer.testing import CliRunner

import layoutsel
import layoutsel.device
from layoutsel.cli.app import app
from layoutsel.compile.compiling import compiled
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.device.artifact_header import read_header
from layoutsel.errors import InputError
from layoutsel.runtime.compiled import CompiledModel
from tests.units.on_units import model

TABLE = np.random.default_rng(0).standard_normal((30, 8)).astype("float32")
IDS = np.array([[0, 29, -30], [7, -1, 3]])
OUTSIDE = {"beyond": 30, "before": -31, "far": 1 << 40}
MESSAGE = r"input 'ids': got {} at position \(1, 0\); expected -30 to 29, as "


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    made = model(nodes, {"ids": IDS}, ["y"], {"table": TABLE})
    session = Session.open(made, units=["cpu"], threads=1)
    result = compiled(session, best_plan(session, priced_problem(Offers.of(session), "roofline")))
    return result.save(tmp_path_factory.mktemp("ids") / "ids.so")


@pytest.fixture(scope="module")
def loaded(artifact):
    return layoutsel.load(artifact)


def wrong(value):
    ids = IDS.copy()
    ids[1, 0] = value
    return ids


def test_legal_indices_from_both_ends(artifact, loaded):
    np.testing.assert_array_equal(loaded(IDS), TABLE[IDS])
    np.testing.assert_array_equal(np.from_dlpack(layoutsel.device.load(artifact)(IDS)), TABLE[IDS])


@pytest.mark.parametrize("value", OUTSIDE.values(), ids=OUTSIDE)
def test_refused_by_a_loaded_model(loaded, value):
    with pytest.raises(InputError, match=MESSAGE.format(value)):
        loaded(wrong(value))
    with pytest.raises(InputError, match=MESSAGE.format(value)):
        loaded(ids=wrong(value))


@pytest.mark.parametrize("value", OUTSIDE.values(), ids=OUTSIDE)
def test_refused_where_there_is_no_numpy(artifact, value):
    with pytest.raises(InputError, match=MESSAGE.format(value)):
        layoutsel.device.load(artifact)(wrong(value))


def test_refused_by_the_command_line(artifact, tmp_path):
    np.save(tmp_path / "ids.npy", wrong(30))
    command = ["run", str(artifact), "--input", f"ids={tmp_path / 'ids.npy'}"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "input 'ids': got 30 at position (1, 0)" in " ".join(result.output.split())
    np.save(tmp_path / "ids.npy", IDS)
    assert CliRunner().invoke(app, [*command, "--repeat", "1"]).exit_code == 0


def test_an_artifact_without_ranges_takes_any(artifact, loaded):
    """Older ones hold none."""
    header = json.loads(json.dumps(read_header(artifact)))
    assert header["inputs"][0].pop("ranges")
    older = CompiledModel(loaded._module, loaded._arrays, header)
    np.testing.assert_array_equal(older(wrong(30))[1, 0], TABLE[0])
