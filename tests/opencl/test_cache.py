"""Programs that one process builds, the next ones find."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path

import pytest
from on_opencl import needs_device, python

pytestmark = needs_device

PROGRAM = """
import json, sys, tvm, tvm_ffi
sys.path.insert(0, {folder!r})
from on_opencl import *
run = kernel("fill", [("handle", 64)], ["blockIdx.x"], "__kernel void fill(__global float* p) {{ p[get_global_id(0)] = 7; }}")
there = tvm.runtime.empty((5,), "float32", tvm.opencl(0))
run(pointer(there), 5)
assert (there.numpy() == 7).all()
print(json.dumps(dict(tvm_ffi.get_global_func("layoutsel.opencl.builds")())))
"""


@pytest.fixture
def run(tmp_path):
    """Run the kernel in a process of its own, with a cache of its own; how it was built."""
    folder = str(Path(__file__).parent)

    def run() -> dict[str, int]:
        environment = {"XDG_CACHE_HOME": str(tmp_path), "POCL_CACHE_DIR": str(tmp_path / "pocl")}
        return json.loads(python(PROGRAM.format(folder=folder), **environment))

    return run


def kept(tmp_path):
    return sorted((tmp_path / "layoutsel" / "opencl").glob("*.clbin"))


BUILT, FOUND = {"source": 1, "binary": 0}, {"source": 0, "binary": 1}


def test_the_second_process_builds_nothing(run, tmp_path):
    assert run() == BUILT
    assert len(kept(tmp_path)) == 1
    assert run() == FOUND


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"p[get_global_id(0)] = 7", b"p[get_global_id(0)] = 8"),
        lambda data: data[:-500] + bytes([data[-500] ^ 1]) + data[-499:],
    ],
    ids=["empty", "cut", "another source", "one bit changed"],
)
def test_what_is_damaged_is_built_anew(run, tmp_path, damage):
    assert run() == BUILT
    (path,) = kept(tmp_path)
    data = path.read_bytes()
    path.write_bytes(damage(data))
    assert path.read_bytes() != data
    assert run() == BUILT
    assert path.read_bytes() == data
    assert run() == FOUND


@pytest.mark.nightly
def test_of_several_at_once_one_builds(run, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = [done.result() for done in [pool.submit(run) for _ in range(3)]]
    assert sorted(results, key=lambda counts: counts["source"]) == [FOUND, FOUND, BUILT]
    assert len(kept(tmp_path)) == 1
    assert run() == FOUND


def test_a_folder_that_cannot_be_made(run, tmp_path):
    (tmp_path / "layoutsel").write_text("in the way")
    assert run() == BUILT
    assert run() == BUILT
