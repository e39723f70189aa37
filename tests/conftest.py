"""Lies here so that pytest puts this folder, with its shared `models`, on the import path."""

import os
import signal

# Processes that share the tests are told the width of a terminal, and commands would go by it.
os.environ.pop("COLUMNS", None)

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the commands that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
