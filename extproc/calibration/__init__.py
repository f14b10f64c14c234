"""Token budgets learnt from what the pools report."""
