"""Networks over several nodes: comparisons, cross-checks, and topologies of others."""
