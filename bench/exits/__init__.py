"""Benches of multi-exit networks."""
