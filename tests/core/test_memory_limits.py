"""Memory of child processes on machines and in containers."""

import os

import pytest

from layoutsel.core import memory_limits
from layoutsel.core.memory_limits import memory_bytes, most_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("268435456\n", 268435456),
        ("max\n", MACHINE),
        ("9223372036854771712\n", MACHINE),
        ("", MACHINE),
    ],
)
def test_a_container_has_its_own_memory(text, wanted, tmp_path, monkeypatch):
    file = tmp_path / "memory.max"
    file.write_text(text)
    monkeypatch.setattr(memory_limits, "_CONTAINER", (file, tmp_path / "missing"))
    assert memory_bytes() == wanted
    assert most_bytes() == int(0.75 * wanted)
