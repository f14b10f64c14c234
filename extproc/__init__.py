"""Dualpool: sends each LLM request to the pool whose window fits its token budget."""

__version__ = "0.2.0"
