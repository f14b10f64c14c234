"""Envoy's configuration: render it for the settings, check and compare an existing one."""
