"""Files, child processes, exit codes and cost vectors, on the standard library alone."""
