"""Entry point of ``python -m layoutsel``."""

from layoutsel.cli import main

if __name__ == "__main__":
    main()
