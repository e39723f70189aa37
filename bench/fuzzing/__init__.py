"""Random graphs and mutated files for :mod:`fuzz`."""
