"""``python -m layoutsel.ondevice``: ``layoutsel-measure``."""

import sys

from layoutsel.ondevice.command import main

if __name__ == "__main__":
    sys.exit(main())
