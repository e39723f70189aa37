"""Lies here so that pytest puts this folder, with its shared `models`, on the import path."""
