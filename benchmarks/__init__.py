"""Measurements of the service behind the real Envoy; they print figures and assert no time."""
