"""Compute units: the candidates of each for a sub-graph, in one table.

A built-in unit has two files: its back end in :mod:`tvm_passes.units`, which works without this
library, and its candidates here. A unit of another package needs only one, because its back end may
import this library.
"""
