"""Schedule search: tasks of models, the search itself, measuring devices, records."""
