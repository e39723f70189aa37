"""``python -m layoutsel``: the command."""

from layoutsel.cli import main

if __name__ == "__main__":
    main()
