"""Errors, files, child processes and names that every room uses; the standard library alone."""
