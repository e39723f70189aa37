"""Reference engines and checks, which tell whether a compiled model is right."""
