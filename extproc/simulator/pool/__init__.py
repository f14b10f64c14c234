"""A simulated pool: vLLM's HTTP API on the engine model, in real time.

A request passes `server` (routes), `request` (validation), `prompt` (chat template, `tokenizer`),
`generation` (its sequences and their `words`), `pace` (the engine against the wall clock) and
`answer` (response bodies). `refusal` has vLLM's error bodies, `metrics` its Prometheus metrics.
"""
