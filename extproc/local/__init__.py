"""The stack on one machine: the pools, the Envoy binary and the demo."""
