"""Programs that one process builds, the next ones find."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
from pathlib import Path

import pytest
from on_opencl import needs_device, python

pytestmark = needs_device

PROGRAM = """
import json, sys
import layoutsel  # before TVM, which would import PyTorch as well
import tvm, tvm_ffi
sys.path.insert(0, {folder!r})
from on_opencl import *
run = kernel("fill", [("handle", 64)], ["blockIdx.x"], "__kernel void fill(__global float* p) {{ p[get_global_id(0)] = 7; }}")
there = tvm.runtime.empty((5,), "float32", tvm.opencl(0))
run(pointer(there), 5)
assert (there.numpy() == 7).all()
print(json.dumps(dict(tvm_ffi.get_global_func("layoutsel.opencl.builds")())))
"""


BUILT, FOUND = {"source": 1, "binary": 0}, {"source": 0, "binary": 1}


def run(cache: Path) -> dict[str, int]:
    """Run the kernel in a process of its own, with its cache in a folder; how it was built."""
    environment = {"XDG_CACHE_HOME": str(cache), "POCL_CACHE_DIR": str(cache / "pocl")}
    return json.loads(python(PROGRAM.format(folder=str(Path(__file__).parent)), **environment))


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """Cache of the first process, which builds the kernel."""
    cache = tmp_path_factory.mktemp("first")
    assert run(cache) == BUILT
    assert len(kept(cache)) == 1
    return cache


@pytest.fixture
def cache(first, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(first, tmp_path / "cache"))


def kept(cache: Path) -> list[Path]:
    """Files of built kernels."""
    return sorted((cache / "layoutsel" / "opencl").glob("*.clbin"))


def test_the_second_process_builds_nothing(cache):
    assert run(cache) == FOUND


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
def test_what_is_damaged_is_built_anew(cache, damage):
    (path,) = kept(cache)
    data = path.read_bytes()
    path.write_bytes(damage(data))
    assert path.read_bytes() != data
    assert run(cache) == BUILT
    assert path.read_bytes() == data


@pytest.mark.nightly
def test_of_several_at_once_one_builds(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = [done.result() for done in [pool.submit(run, tmp_path) for _ in range(3)]]
    assert sorted(results, key=lambda counts: counts["source"]) == [FOUND, FOUND, BUILT]
    assert len(kept(tmp_path)) == 1
    assert run(tmp_path) == FOUND


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "layoutsel").write_text("in the way")
    assert run(tmp_path) == BUILT
    assert run(tmp_path) == BUILT
