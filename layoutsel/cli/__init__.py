"""Command line: ``layoutsel inspect | plan | compile | run | bench | explain | doctor | demo``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 2 after a user error, 130 after Ctrl-C, 1 after a bug."""
    from layoutsel.core.exit_codes import USER_ERROR
    from layoutsel.report import terminal

    try:
        terminal.open_standard_streams()
        _run(arguments)
    except terminal.OutputError as error:
        terminal.error(str(error))
    except OSError as error:  # from --help and --version; commands report their own errors
        terminal.give_up(1)
        terminal.error(str(terminal.OutputError(error)))
    else:
        return
    sys.exit(USER_ERROR)


def _run(arguments: Sequence[str] | None) -> None:
    from layoutsel.core.collection import paused_collection

    with paused_collection():
        from layoutsel.cli.app import app
        from layoutsel.cli.guard import DEBUG_FLAG, set_debug

    given = list(sys.argv[1:] if arguments is None else arguments)
    set_debug(DEBUG_FLAG in given)
    app(args=[argument for argument in given if argument != DEBUG_FLAG], prog_name="layoutsel")
