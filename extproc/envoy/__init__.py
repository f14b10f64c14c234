"""Envoy's side of the settings: the configuration that fits them, and a review of another's."""
