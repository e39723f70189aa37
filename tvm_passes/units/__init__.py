"""Our own compute units as the passes see them: one file each, which defines ``BACKEND``.

Importing these files does not import TVM.
"""
