"""Files, their versions, child processes, exit codes and costs, on the standard library alone."""
