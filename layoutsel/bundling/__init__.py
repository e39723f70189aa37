"""Support for devices out of reach: bundles for them, a runtime, and import of their results."""
