"""A model of vLLM's engine, and a simulated pool that serves vLLM's HTTP API on it."""
