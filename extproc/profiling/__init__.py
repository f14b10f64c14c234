"""Measure a running vLLM, fit a profile to it, and hold the simulator against it."""
