"""Compute units: the candidates of each for a sub-graph, in one table."""
