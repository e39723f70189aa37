"""Compute units that TVM generates device code for: ``opencl``, on the run time of :mod:`tvm_passes.opencl`."""
