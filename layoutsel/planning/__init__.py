"""Planning: the problem of deciding every sub-graph, its solvers, and plans; without TVM."""
