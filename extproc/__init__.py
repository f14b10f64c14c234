"""Dualpool: sends each LLM request to the pool whose window fits its token budget."""
