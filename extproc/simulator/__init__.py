"""A model of vLLM: `engine` is the scheduler alone, `pool` a server with the OpenAI API on it."""
