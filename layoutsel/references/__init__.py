"""Reference engines and checks for the correctness of compiled models."""
