"""Warnings of the library on standard error."""

import logging

from layoutsel.cli.guard import guarded


def test_equal_warnings_of_a_command_are_shown_once(capfd):
    def command():
        for load in (1, 1, 2):
            logging.getLogger("layoutsel.cost").warning("the machine is busy: %d", load)

    for _ in range(2):
        guarded(command)()
    lines = capfd.readouterr().err.splitlines()
    assert [line[-1] for line in lines] == ["1", "2", "1", "2"]
