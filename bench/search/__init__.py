"""Benches of architecture search."""
