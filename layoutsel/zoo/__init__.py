"""Networks to try on: light models with random weights, published architectures, sweeps of single operators."""
