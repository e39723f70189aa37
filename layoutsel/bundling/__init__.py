"""Devices that cannot be reached from here: what is compiled for them, what they run it with, and what comes back."""
