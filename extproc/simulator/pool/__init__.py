"""A simulated pool: vLLM's HTTP API on the engine model, in real time.

A request passes `routes`, `server` (handlers), `body` (JSON), `request` with `shapes`, `responses`
and `messages` (fields), `sampling` (checks), `prompt` (chat template, `tokenizer`), `generation`
(its sequences and their `words`), `pace` (the engine against the wall clock) and `answer`,
`responses_answer` or `messages_answer` (response bodies). `refusal` has vLLM's error bodies,
`metrics` its Prometheus metrics.
"""
