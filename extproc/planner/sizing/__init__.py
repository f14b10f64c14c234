"""Size pools by queueing formulas."""
