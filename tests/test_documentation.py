"""The README and the pages of ``docs/`` agree with the tree and with the command line."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from layoutsel.cli.app import COMMANDS, app
from layoutsel.planning.objectives import OBJECTIVES
from layoutsel.units.base import UNITS
from tvm_passes.algorithms import ALGORITHMS
from tvm_passes.layouts import LAYOUTS
from tvm_passes.operators import OPERATORS
from tvm_passes.precisions import PRECISIONS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
TABLES = (UNITS, LAYOUTS, PRECISIONS, OPERATORS, ALGORITHMS, OBJECTIVES)
GROUPS = {table.group for table in TABLES}
"""Entry-point groups, which are named like modules."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
MODULE = re.compile(r"\b(?:layoutsel|tvm_passes)(?:\.\w+)+")
FILE = re.compile(r"`((?:layoutsel|tvm_passes|tests|bench|docs)/[\w/.]+)`")


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of one language."""
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def commands(page: Path) -> Iterator[list[str]]:
    """Words of each command line of layoutsel, without its comment."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "layoutsel":
                yield words[1:]


def is_name(dotted: str) -> bool:
    """True for a module, or for a public name of a module."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        rest = parts[end:]
        return not rest or (len(rest) == 1 and hasattr(found, rest[0]))
    return False


def test_the_readme_fits_a_newcomer():
    assert len(README.read_text().splitlines()) <= 250


def test_the_readme_lists_every_page():
    links = set(LINK.findall(README.read_text()))
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = BLOCK.sub("", page.read_text())
    links = [link for link in LINK.findall(text) if "://" not in link]
    missing = {link for link in links if not (page.parent / link).exists()}
    missing |= {name for name in FILE.findall(text) if not (ROOT / name).exists()}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_modules_import(page):
    names = set(MODULE.findall(page.read_text())) - GROUPS
    assert not {name for name in names if not is_name(name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    group = typer.main.get_command(app)
    for name, *words in commands(page):
        command = group.commands[name]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        options = {option for item in command.params for option in item.opts}
        unknown = {word for word in words if word.startswith("-")} - options
        assert not unknown, f"layoutsel {name}"


def test_every_command_is_documented():
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert not {name for name in COMMANDS if f"`{name}`" not in page}


@pytest.mark.nightly
@pytest.mark.parametrize("index", range(2))
def test_the_code_of_the_readme_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(README, "python")
    assert len(found) == 2
    exec(compile(found[index], "README.md", "exec"), {"__name__": "readme"})


def test_the_guide_describes_every_table_in_one_form():
    text = (ROOT / "docs" / "extending.md").read_text()
    for table in TABLES:
        section = text.split(f"\n## {table.concept.capitalize()}s\n")[1].split("\n## ")[0]
        for part in ("**File**: ", f"**Entry point**: `{table.group}`", "**To be given**: "):
            assert part in section, (table.concept, part)
        assert f"| [{table.concept}s](#{table.concept}s) | `{table.group}` |" in text
