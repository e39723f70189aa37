"""Search of a network whose first part runs on one device and whose second part on another.

PyTorch is imported by child processes only.
"""
