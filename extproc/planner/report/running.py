"""From a plan to running: the files that start its pools and the service."""

from collections.abc import Iterator, Sequence

from extproc.planner.proof.tails import Shape


def running_files(shapes: Sequence[Shape], instances: Sequence[int]) -> dict[str, str]:
    """Return the text of each file by its name; so many instances of each pool.

    `.env` has the variables of docker-compose.yml, which knows a short and a long pool: other plans
    have none.
    """
    files = {
        "dualpool.yaml": _settings(shapes),
        "vllm.sh": _script(shapes, instances),
        "values.yaml": _values(shapes),
    }
    if len(shapes) == 2:
        files[".env"] = _variables(shapes)
    return {name: "\n".join(lines) + "\n" for name, lines in files.items()}


def _settings(shapes: Sequence[Shape]) -> Iterator[str]:
    yield "# The pools of a plan. Give each its address: host:port."
    yield "pools:"
    for shape in shapes:
        yield f"  - {{name: {shape.name}, max_model_len: {shape.max_model_len}}}"


def _script(shapes: Sequence[Shape], instances: Sequence[int]) -> Iterator[str]:
    names = "|".join(shape.name for shape in shapes)
    yield "#!/bin/sh"
    yield f"# Start an instance of a pool: MODEL=NAME sh vllm.sh {names} [further options of vLLM]"
    yield f'usage="usage: MODEL=NAME sh vllm.sh {names} [OPTION...]"'
    yield "pool=${1:?$usage}"
    yield ": ${MODEL:?$usage}"
    yield "shift"
    yield "case $pool in"
    for shape, count in zip(shapes, instances, strict=True):
        # A name of a profile is any text: a new line would be a command.
        profile = " ".join(shape.profile.name.split())
        yield f"# {shape.name}: {count} x {shape.profile.gpus} GPU, {profile}"
        yield f"{shape.name})"
        yield f'  exec vllm serve "$MODEL" {" ".join(_options(shape))} "$@" ;;'
    yield '*) echo "$usage" >&2; exit 2 ;;'
    yield "esac"


def _options(shape: Shape) -> Iterator[str]:
    yield f"--max-model-len {shape.max_model_len}"
    yield f"--max-num-seqs {shape.max_num_seqs}"
    yield f"--max-num-batched-tokens {_batched(shape)}"
    if shape.long_prefill_token_threshold:
        yield f"--long-prefill-token-threshold {shape.long_prefill_token_threshold}"
    yield f"--tensor-parallel-size {shape.profile.gpus}"


def _values(shapes: Sequence[Shape]) -> Iterator[str]:
    yield "# The pools of a plan, as values of deploy/helm/dualpool. Give each the address of its"
    yield "# servers' Service."
    yield "settings:"
    yield "  pools:"
    for shape in shapes:
        address = f"vllm-{shape.name}.llm.svc.cluster.local:8000"
        named = f"name: {shape.name}, max_model_len: {shape.max_model_len}"
        yield f'  - {{{named}, address: "{address}"}}'


def _variables(shapes: Sequence[Shape]) -> Iterator[str]:
    yield "# In place of these lines of the .env of docker-compose.yml: one instance of each pool."
    for name, shape in zip(("SHORT", "LONG"), shapes, strict=True):
        yield f"{name}_MAX_MODEL_LEN={shape.max_model_len}"
        yield f"{name}_MAX_NUM_SEQS={shape.max_num_seqs}"
        yield f"{name}_MAX_NUM_BATCHED_TOKENS={_batched(shape)}"


def _batched(shape: Shape) -> int:
    # vLLM does not start with fewer batched tokens than sequences.
    return max(shape.max_num_batched_tokens, shape.max_num_seqs)
