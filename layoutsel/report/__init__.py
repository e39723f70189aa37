"""Plans, explanations and logs as tables and graphs."""
