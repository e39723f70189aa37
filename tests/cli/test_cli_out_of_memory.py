"""A command that runs out of memory ends with one line, like any other that its place does not suit."""

from __future__ import annotations

import pytest
import typer

from layoutsel.cli.guard import guarded


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 64.0 GiB")])
def test_out_of_memory_is_one_line(capsys, error):
    def command():
        raise error

    with pytest.raises(typer.Exit) as caught:
        guarded(command)()
    assert caught.value.exit_code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "out of memory" in lines[0]
    assert str(error) in lines[0]
