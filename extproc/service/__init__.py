"""The processes: gRPC for Envoy, HTTP for the operator, workers and their supervisor."""
