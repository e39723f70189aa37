"""Multi-exit networks: branches in parallel with the trunk, an answer as soon as one is sure."""
