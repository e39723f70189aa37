"""Building of modules from plans: lowering, single candidates, code of measuring processes."""
