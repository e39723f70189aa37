"""Entry point of ``python -m layoutsel.device``, the same as ``layoutsel-measure``."""

import sys

from layoutsel.device.command import main

if __name__ == "__main__":
    sys.exit(main())
