"""Networks whose stages run on an OpenCL device and on the host."""

from layoutsel.exits.costs import priced
from layoutsel.exits.exit_code import ExitCode

HOST, DEVICE = "cpu-1", "opencl-0"
"""Workers."""
SURE, UNSURE = 0.0, 1.0
"""Thresholds."""


def code_of(net) -> ExitCode:
    found = priced(net, units=["cpu", "opencl"], threads=1, cost="roofline")
    return ExitCode(network=net, found=found, options={"verify": False})
