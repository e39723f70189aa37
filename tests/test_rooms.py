"""Imports between the rooms of the library go one way."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import layoutsel
import tvm_passes

ROOMS = (
    "cli",
    "benchmarking",
    "api",
    "search",
    "exits",
    "cluster",
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


WITH_CODE = ("building", "tuning")
"""Rooms that open the code of sub-graphs; others ask `Functions` about them by id."""


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in WITH_CODE])
def test_code_is_opened_in_its_rooms_alone(room):
    opened = {
        f"{file.relative_to(FOLDER)}:{node.lineno}"
        for file in FILES
        if file.relative_to(FOLDER).with_suffix("").parts[0] == room
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Subscript)
        and ast.unparse(node.value).rpartition(".")[2] == "functions"
    }
    assert not opened


def modules_of(package: Path) -> dict[str, Path]:
    """Every file of a package by its module's name."""
    names = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def files_imported(file: Path, modules: dict[str, Path]) -> set[str]:
    """Modules among `modules` that a file imports anywhere, within functions and for types as well."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: expected absolute imports"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= set(modules) else {node.module, *names}
    return found & set(modules)


def circle_of(modules: dict[str, Path]) -> list[str]:
    """Files that import each other in a circle; none where there is no circle."""
    imports = {name: files_imported(file, modules) - {name} for name, file in modules.items()}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    folders = (FOLDER, Path(tvm_passes.__file__).parent)
    modules = {name: file for folder in folders for name, file in modules_of(folder).items()}
    assert len(modules) > 400
    assert not circle_of(modules)


@pytest.mark.parametrize(
    "text",
    [
        "from package.b import thing",
        "from package import b",
        "import package.b",
        "def late():\n    from package.b import thing",
        "if TYPE_CHECKING:\n    from package.b import thing",
    ],
)
def test_a_circle_is_found_however_a_file_imports(tmp_path, text):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text(text)
    (package / "b.py").write_text("from package.c import x")
    (package / "c.py").write_text("")
    assert not circle_of(modules_of(package))
    (package / "c.py").write_text("import package.a")
    circle = circle_of(modules_of(package))
    assert set(circle) == {"package.a", "package.b", "package.c"}


def test_each_test_file_has_a_name_of_its_own():
    """Pytest imports them as modules without packages."""
    names = Counter(file.name for file in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
