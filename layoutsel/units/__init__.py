"""Compute units: what each offers for a sub-graph, in one table."""
