"""Compute units for which TVM generates device code: ``cuda`` and ``opencl``.

The runtime of ``cuda`` is part of TVM's wheel; that of ``opencl`` is in :mod:`tvm_passes.opencl`.
"""
