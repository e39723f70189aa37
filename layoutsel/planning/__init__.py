"""Which decision for every sub-graph: the problem, its solvers, the plan. No TVM in here."""
