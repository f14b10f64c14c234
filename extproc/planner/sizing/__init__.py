"""How many instances each pool needs, by queueing formulas."""
