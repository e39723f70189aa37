"""Plans become modules: lowering, candidates by themselves, and what measuring processes run."""
