"""Estimate what a request needs, in tokens, and learn it from what the pools report."""
