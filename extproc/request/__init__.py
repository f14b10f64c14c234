"""Read a request body of any API that vLLM serves."""
