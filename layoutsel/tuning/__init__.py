"""Schedules found by search: the tasks of models, the search, the devices that measure, and the records that remain."""
