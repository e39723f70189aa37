"""The planner and the cost models work without TVM."""

import subprocess
import sys
from pathlib import Path

import layoutsel.cost
import layoutsel.planning

CHECK = """
import sys
sys.modules["tvm"] = None
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not any(module.startswith("tvm_ffi") for module in sys.modules)
"""


def test_no_tvm():
    names = [
        f"{package.__name__}.{file.stem}"
        for package in (layoutsel.planning, layoutsel.cost)
        for file in Path(package.__path__[0]).glob("*.py")
    ]
    assert len(names) > 15
    subprocess.run([sys.executable, "-c", CHECK, *names], check=True)
