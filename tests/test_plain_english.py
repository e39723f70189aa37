"""Docstrings are plain English; a room joins the list when its docstrings are rewritten."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import layoutsel

PACKAGES = Path(layoutsel.__file__).parent.parent
ROOMS = (
    "layoutsel/__init__.py",
    "layoutsel/api.py",
    "layoutsel/benchmarking",
    "layoutsel/building",
    "layoutsel/bundling",
    "layoutsel/cli",
    "layoutsel/cluster",
    "layoutsel/compile",
    "layoutsel/core",
    "layoutsel/cost",
    "layoutsel/device",
    "layoutsel/documents",
    "layoutsel/errors.py",
    "layoutsel/evaluation",
    "layoutsel/exits",
    "layoutsel/model",
    "layoutsel/planning",
    "layoutsel/references",
    "layoutsel/report",
    "layoutsel/runtime",
    "layoutsel/tuning",
    "layoutsel/units",
    "layoutsel/zoo",
    "tvm_passes",
)
"""Folders and files whose docstrings keep the rules."""
OPENINGS = re.compile(r"(What|Whether|How|Of|By)\b")
"""First words of sentences that hide their subject."""
WORDINGS = re.compile(
    r"\b(shall|anew|but for|(do|does|done) without|gives? way|whoever|beside|behind)\b"
)
"""Archaic or personified wordings."""
LONGEST = 30
"""Words of the longest first line."""
SENTENCE_END = re.compile(r"(?<=[\w`)]{2}\.)\s+")
"""Gap after a sentence; that after an abbreviation such as 'e.g.' is none."""


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, those of fields and constants included."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def sentences(text: str) -> Iterator[str]:
    """Sentences of a docstring; the description of each parameter begins one."""
    depth, lines = None, []
    for line in [*text.splitlines(), ""]:
        indent = len(line) - len(line.lstrip())
        if lines and (not line.strip() or indent != depth):
            yield from SENTENCE_END.split(" ".join(lines))
            lines = []
        depth = indent
        if line.strip():
            lines.append(line.strip())


def faults(text: str) -> Iterator[str]:
    """Breaches of the rules in one docstring."""
    first = text.strip().splitlines()[0]
    if len(first.split()) > LONGEST:
        yield f"more than {LONGEST} words: {first}"
    prose = re.sub(r"`[^`]*`", "code", text)
    for sentence in sentences(prose):
        if OPENINGS.match(sentence):
            yield f"begins with {sentence.split()[0]!r}: {sentence}"
    if found := WORDINGS.search(prose):
        yield f"the wording {found[0]!r}: {first}"


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_are_plain_english(room):
    root = PACKAGES / room
    files = [root] if root.is_file() else sorted(root.rglob("*.py"))
    assert files
    found = [
        f"{file.relative_to(PACKAGES)}:{line}: {fault}"
        for file in files
        for line, text in docstrings(ast.parse(file.read_text()))
        for fault in faults(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Whether it runs.", "begins with 'Whether'"),
        ("Cost of a run. What it costs.", "begins with 'What'"),
        (
            "Plan.\n\n    Parameters\n    ----------\n    unit\n        Of the run.\n",
            "begins with 'Of'",
        ),
        ("Time that a run shall take.", "'shall'"),
        ("Units beside\n    the host.", "'beside'"),
        (" ".join(["word"] * 31), "more than 30 words"),
    ],
)
def test_the_checker_finds_faults(text, fault):
    assert any(fault in one for one in faults(text))


@pytest.mark.parametrize(
    "text",
    [
        "Number of runs, e.g. What-if runs.",
        "Decision by unit; see `beside`.",
        "Plan.\n\n    Returns\n    -------\n    Plan\n        The plan, known or not,\n        whether optimal.\n",
        "A list of words:\n\n    - how it runs\n",
    ],
)
def test_the_checker_raises_no_false_alarms(text):
    assert not list(faults(text))
