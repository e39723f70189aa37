"""Architecture and its division over nodes, searched together; only child processes use PyTorch."""
