"""Training of multi-exit networks with PyTorch, which only child processes import."""
