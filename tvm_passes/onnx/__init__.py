"""ONNX's side of operators: converters to Relax, rules of nodes, and references in float64.

Entries of :mod:`tvm_passes.operators` name what is here. Each module imports on use what it needs.
"""
