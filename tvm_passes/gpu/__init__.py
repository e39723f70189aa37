"""Compute units that TVM generates device code for: ``cuda``, on the run time of TVM's wheel, and ``opencl``, on ours."""
