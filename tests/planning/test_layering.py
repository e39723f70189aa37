"""The planner, the cost models and the graph work without TVM."""

import pkgutil
import subprocess
import sys

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
        module.name
        for package in (layoutsel.planning, layoutsel.cost)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    assert {"layoutsel.planning.objectives.sum", "layoutsel.cost.graph"} < set(names)
    assert len(names) > 15
    subprocess.run([sys.executable, "-c", CHECK, *names], check=True)
