"""Costs of sub-graphs and boundaries: measured, learned, or estimated by the roofline; no TVM."""
