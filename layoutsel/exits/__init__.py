"""Multi-exit networks: branches beside the trunk, an answer per request as soon as one is sure."""
