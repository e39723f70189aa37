"""Loading, running, timing and tracing of compiled models."""
