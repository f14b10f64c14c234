"""Benchmarks of the service behind a real Envoy; they print figures and assert no times."""
