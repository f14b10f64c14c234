"""The stack on one machine (pools, service, Envoy), and the demo that runs traffic through it."""
