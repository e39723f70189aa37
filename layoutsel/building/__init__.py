"""Building of modules: lowering of whole plans, single candidates, and their measuring."""
