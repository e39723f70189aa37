"""An entry that a package adds is there in processes that have the package, and in no others."""

import pytest

from tests.registries.outside import install

LISTED = """
from dataclasses import dataclass
from tvm_passes.registry import Registry

@dataclass(frozen=True)
class Colour:
    name: str

print(*Registry("colour", lambda: [Colour("red")]))
"""


@pytest.fixture
def package(tmp_path):
    module = tmp_path / "fuchsia.py"
    module.write_text(
        "from types import SimpleNamespace\nCOLOUR = SimpleNamespace(name='fuchsia')\n"
    )
    return install(tmp_path / "installed", module, {"colours": "COLOUR"})


def test_an_installed_package_adds_its_entry(package):
    assert package.run(LISTED).split() == ["red", "fuchsia"]
    assert package.run(LISTED, installed=False).split() == ["red"]


def test_a_failing_child_process_shows_its_error(package):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        package.run("1 / 0")
