"""Measures a running vLLM, fits a profile to it, and compares the simulator with it."""
