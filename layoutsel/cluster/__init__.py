"""A network divided over the nodes of a topology: planned for targets, executed, re-planned."""
