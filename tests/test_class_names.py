"""A class name means one thing in the whole tree."""

import ast
from collections import defaultdict
from pathlib import Path

import layoutsel
import tvm_passes


def test_public_class_names_are_unique():
    found = defaultdict(list)
    for package in (layoutsel, tvm_passes):
        root = Path(package.__file__).parent
        for file in root.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(f"{package.__name__}/{file.relative_to(root)}")
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
