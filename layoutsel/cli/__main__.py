"""Entry point of ``python -m layoutsel.cli``."""

from layoutsel.cli import main

main()
