"""Loading, running, verifying and tracing what was built."""
