"""Code of ONNX operators: converters to Relax, rules for nodes, and references in float64.

Entries of :mod:`tvm_passes.operators` refer to it. Converters and references are imported on use.
"""
