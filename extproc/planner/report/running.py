"""From a plan to running: the files that start its pools and the service."""

from collections.abc import Iterator

from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Question


def running_files(plan: Plan, question: Question) -> dict[str, str]:
    """Return the text of each file by its name.

    `.env` has the variables of docker-compose.yml, which knows a short and a long pool: other plans
    have none.
    """
    files = {
        "dualpool.yaml": "\n".join(_settings(plan)) + "\n",
        "vllm.sh": "\n".join(_commands(plan, question)) + "\n",
    }
    if len(plan.pools) == 2:
        files[".env"] = "\n".join(_variables(plan, question)) + "\n"
    return files


def _settings(plan: Plan) -> Iterator[str]:
    yield "# The pools of a plan. Give each its address: host:port."
    yield "pools:"
    for pool in plan.pools:
        yield f"  - {{name: {pool.name}, max_model_len: {pool.max_model_len}}}"


def _commands(plan: Plan, question: Question) -> Iterator[str]:
    yield "# One command an instance; MODEL is the name of your model."
    for pool in plan.pools:
        # vLLM does not start with fewer batched tokens than sequences.
        batched = max(question.max_num_batched_tokens, pool.max_num_seqs)
        yield f"# {pool.name}: {pool.instances} instances of {question.profile.gpus} GPUs"
        yield (
            f'vllm serve "$MODEL" --max-model-len {pool.max_model_len} '
            f"--max-num-seqs {pool.max_num_seqs} --max-num-batched-tokens {batched} "
            f"--tensor-parallel-size {question.profile.gpus}"
        )


def _variables(plan: Plan, question: Question) -> Iterator[str]:
    yield "# For the .env of docker-compose.yml: one instance of each pool."
    for name, pool in zip(("SHORT", "LONG"), plan.pools, strict=True):
        yield f"{name}_MAX_MODEL_LEN={pool.max_model_len}"
        yield f"{name}_MAX_NUM_SEQS={pool.max_num_seqs}"
        batched = max(question.max_num_batched_tokens, pool.max_num_seqs)
        yield f"{name}_MAX_NUM_BATCHED_TOKENS={batched}"
