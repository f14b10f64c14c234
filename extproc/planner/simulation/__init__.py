"""Simulate a fleet request by request, with the routing rule of the service."""
