"""Artifacts in atoms for a machine class with fewer instruction sets, and the memory that weights take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from small_models import model_of

from layoutsel.bundling.deployment import write_artifact
from layoutsel.cluster.atoms import plan_in_atoms
from layoutsel.cluster.engine import digest
from layoutsel.compile.generic import offered
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.session import Session
from layoutsel.device.machine import this_machine
from layoutsel.runtime.artifact import read
from tests.runtime.branching import expected, image, network
from tvm_passes.isa import VARIABLE
from tvm_passes.onednn import available

PROFILE = Path(__file__).parents[2] / "bench" / "machines" / "xeon_8380_a10.json"
AVX2 = ("sse4_2", "avx", "avx2", "fma", "f16c")
LIMIT_S = 120
RUN = """
import sys
import numpy as np
import layoutsel
model = layoutsel.load(sys.argv[1], verify=True)
x = np.load(sys.argv[2])
tensors = {"input.0": x}
with model.worker(threads=model.threads) as worker:
    for stage in model.stages:
        tensors.update(worker.run(stage.name, tensors).result(60))
whole = model(x)
assert all(np.array_equal(one, tensors[f"output.{i}"]) for i, one in enumerate(whole))
np.savez(sys.argv[3], *whole)
"""


def older_machine(folder: Path, threads: int = 2) -> Path:
    """A machine file of a CPU with AVX2 alone."""
    document = json.loads(PROFILE.read_text())
    document["machine"] |= {"cpu": "a CPU with AVX2", "isa": AVX2, "cores": threads}
    document["peaks"]["threads"] = threads
    document |= {"devices": {}, "links": []}
    file = folder / "avx2.json"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.skipif("avx2" not in this_machine().isa, reason="the CPU has no AVX2")
@pytest.mark.parametrize("units", [["cpu"], ["cpu", "onednn"]])
def test_an_artifact_for_avx2_runs_within_avx2(tmp_path, units):
    if "onednn" in units and available() is not None:
        pytest.skip(str(available()))
    session = Session.open(network(), machine=older_machine(tmp_path), units=units)
    plan = best_plan(session, priced_problem(offered(session), "roofline"))
    artifact = tmp_path / "avx2.so"
    write_artifact(session, plan_in_atoms(plan, session.graph), artifact)
    features = set(read(artifact).header["features"])
    assert "avx2" in features
    assert not any("avx512" in one or "amx" in one for one in features)
    np.save(tmp_path / "x.npy", image())
    done = subprocess.run(
        [sys.executable, "-c", RUN, artifact, tmp_path / "x.npy", tmp_path / "y.npz"],
        env={**os.environ, VARIABLE: "AVX2"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert not done.returncode, done.stderr
    found = np.load(tmp_path / "y.npz")
    for got, want in zip(found.values(), expected(network(), image()), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


WIDTH, DEPTH = 1536, 8
"""Weights of 9 MB each, 75 MB together."""
MEMORY = """
import sys
from pathlib import Path
import numpy as np
path, kind, width = sys.argv[1:]

def resident():
    pages, own, mapped = 0, 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and ":" not in line.split(" ")[0]:
            mapped = line.endswith(path)
        elif line.startswith("Rss:"):
            pages += mapped * int(line.split()[1])
            own += (not mapped) * int(line.split()[1])
    return 1024 * pages, 1024 * own

if kind == "host":
    import layoutsel
    from layoutsel.runtime.arrays import to_tensor
    model = layoutsel.load(path)
else:
    import layoutsel.device
    from layoutsel.runtime.arrays import to_tensor
    model = layoutsel.device.load(path)
names = [stage.name for stage in model.stages]
half = names[: len(names) // 2]
start = resident()
with model.worker(threads=model.threads) as worker:
    x = to_tensor(np.ones((1, int(width)), np.float32))
    worker.start(half, [x]).result(60)
    front = resident()
    if kind == "host":
        model(np.ones((1, int(width)), np.float32))
    else:
        model(x)
whole = resident()
print(start[0], front[0], whole[0], whole[1] - start[1])
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A network that is mostly weights, as an artifact in atoms."""
    generator = np.random.default_rng(0)
    weights, nodes, source = {}, [], "x"
    for index in range(DEPTH):
        values = generator.standard_normal((WIDTH, WIDTH)).astype(np.float32)
        weights[f"w{index}"] = values / WIDTH**0.5
        nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Relu", [f"m{index}"], [f"r{index}"]))
        source = f"r{index}"
    nodes.append(helper.make_node("Identity", [source], ["y"]))
    model = model_of(nodes, {"x": (1, WIDTH)}, {"y": (1, WIDTH)}, weights)
    session = Session.open(model, units=["cpu"], threads=1)
    plan = best_plan(session, priced_problem(offered(session), "roofline"))
    staged = plan_in_atoms(plan, session.graph)
    assert len(staged.stages) == DEPTH
    path = tmp_path_factory.mktemp("wide") / "wide.so"
    write_artifact(session, staged, path)
    return path


@pytest.mark.parametrize("kind", ["host", "device"])
def test_weights_of_atoms_that_never_run_are_not_read(wide, kind):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, wide, kind, str(WIDTH)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert not done.returncode, done.stderr
    start, front, whole, own = map(int, done.stdout.split())
    weights = 4 * WIDTH**2 * DEPTH
    assert start < 0.1 * weights
    # The system reads a little ahead.
    assert 0.5 * weights <= front < 0.65 * weights
    assert whole >= weights
    assert own < 0.2 * weights


def test_the_digest_of_an_artifact_tells_any_change(wide, tmp_path):
    before = digest(wide)
    changed = tmp_path / "changed.so"
    content = bytearray(wide.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    assert digest(changed) != before
    assert len(before) == 64
