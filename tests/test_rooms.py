"""Imports between the rooms of the library go one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import layoutsel

ROOMS = (
    "cli",
    "benchmarking",
    "api",
    "bundling",
    "compile",
    "report",
    "evaluation",
    "tuning",
    "references",
    "building",
    "units",
    "model",
    "zoo",
    "runtime",
    "planning",
    "cost",
    "device",
    "documents",
    "core",
    "errors",
)
"""From the top to the bottom: a room imports itself and rooms below it."""
FOLDER = Path(layoutsel.__file__).parent
FILES = [
    file for file in sorted(FOLDER.rglob("*.py")) if file.parent != FOLDER or file.stem in ROOMS
]


def room_of(module: str) -> str:
    """``cost`` of ``layoutsel.cost.store``."""
    return module.split(".")[1]


def imported(file: Path) -> Iterator[str]:
    """Modules of the library that a file imports, within functions and for types as well."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("layoutsel."))


def test_every_folder_is_a_room():
    folders = {file.parent.name for file in FOLDER.glob("*/__init__.py")}
    modules = {file.stem for file in FOLDER.glob("*.py")} - {"__init__", "__main__"}
    assert folders | modules == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down(room):
    below = set(ROOMS[ROOMS.index(room) :])
    # The package itself only holds its version and names that it imports on use.
    below |= {"__version__", "__file__"}
    files = [file for file in FILES if file.relative_to(FOLDER).with_suffix("").parts[0] == room]
    assert files
    upward = {
        (file.relative_to(FOLDER).as_posix(), name)
        for file in files
        for name in imported(file)
        if room_of(name) not in below
    }
    assert not upward


WITHOUT_CODE = ("cli", "report", "evaluation", "planning", "cost", "device")
"""Rooms that see sub-graphs as shapes and edges: their code is for building and units."""


@pytest.mark.parametrize("room", WITHOUT_CODE)
def test_no_room_opens_code_that_needs_none(room):
    opened = {
        f"{file.relative_to(FOLDER)}:{node.lineno}"
        for file in FILES
        if file.relative_to(FOLDER).with_suffix("").parts[0] == room
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "functions"
    }
    assert not opened
