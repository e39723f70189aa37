"""Networks for tests and training: light models, published architectures, operator sweeps."""
