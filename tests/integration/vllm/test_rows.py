"""Two models of real vLLM in two rows, one of them with three pools and an adapter.

Five servers need 12 GB and some minutes of two quiet cores: only with DUALPOOL_VLLM_ROWS=1.
"""

import json
import os
import struct
from contextlib import ExitStack

import openai
import pytest

from tests.support.local_stack import fetch
from tests.support.production_stack import wait_for
from tests.support.rows_stack import ask, fronted_rows
from tests.support.vllm_servers import SERVE, vllm, wait_until_healthy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# name: port, max_model_len, max_num_seqs
CHAT = {
    "chat-short": (8151, 1024, 16),
    "chat-medium": (8152, 4096, 8),
    "chat-long": (8153, 16384, 4),
}
CODE = {"code-short": (8154, 2048, 16), "code-long": (8155, 16384, 4)}
LONG, LONGER = "many words here " * 450, "many words here " * 1800


def write_adapter(folder, config):
    """Write an adapter of rank 1 that changes nothing."""
    base = "base_model.model.model.layers.0.self_attn.q_proj"
    hidden = config["hidden_size"]
    shapes = {f"{base}.lora_A.weight": [1, hidden], f"{base}.lora_B.weight": [hidden, 1]}
    sizes = [4 * hidden * index for index in range(3)]
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": sizes[index : index + 2]}
        for index, (name, shape) in enumerate(shapes.items())
    }
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + bytes(sizes[-1])
    (folder / "adapter_model.safetensors").write_bytes(data)
    about = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    about |= {"base_model_name_or_path": "tiny-qwen", "task_type": "CAUSAL_LM", "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = os.environ.get("DUALPOOL_VLLM")
    if not folder or not SERVE.exists() or not os.environ.get("DUALPOOL_VLLM_ROWS"):
        pytest.skip("no real vLLM: set DUALPOOL_VLLM, and DUALPOOL_VLLM_ROWS=1 for five servers")
    adapter = tmp_path_factory.mktemp("adapter")
    with open(f"{folder}/models/tiny-qwen/config.json") as file:
        write_adapter(adapter, json.load(file))
    names = ["--served-model-name", "chat", "chat-v2", "--enable-lora", "--max-lora-rank", "8"]
    chat = [*names, "--lora-modules", f"sql-lora={adapter}"]
    code = ["--served-model-name", "code"]
    with ExitStack() as servers:
        for core, pool in enumerate(CHAT.values()):
            servers.enter_context(vllm(folder, core % 2, *pool, flags=chat))
        for core, pool in enumerate(CODE.values()):
            servers.enter_context(vllm(folder, core, *pool, "tiny-llama", code))
        urls = [f"http://127.0.0.1:{port}" for port, *_ in (CHAT | CODE).values()]
        wait_until_healthy(urls, seconds=1500)  # five at once, on few cores
        rows = [
            {"models": ["chat", "chat-*", "sql-lora"], "pools": described(CHAT)},
            {"models": ["code"], "pools": described(CODE)},
        ]
        yield servers.enter_context(fronted_rows(tmp_path_factory.mktemp("rows"), rows, "chat"))


def described(pools):
    return [
        {"name": name, "max_model_len": window, "address": f"127.0.0.1:{port}"}
        for name, (port, window, _) in pools.items()
    ]


@pytest.mark.parametrize(
    ("model", "text", "pool"),
    [
        ("chat", "Owls?", "chat-short"),
        ("chat-v2", "Owls?", "chat-short"),
        ("sql-lora", "Owls?", "chat-short"),
        ("sql-lora", LONG, "chat-medium"),
        ("sql-lora", LONGER, "chat-long"),
        ("code", "Owls?", "code-short"),
        ("code", LONGER, "code-long"),
    ],
)
def test_each_model_and_adapter_is_answered_by_its_own_row(stack, model, text, pool):
    answer = ask(stack, model, text)
    assert (answer.status, answer.pool, answer.json["model"]) == (200, pool, model), answer.body


def test_an_unknown_model_reaches_no_server(stack):
    with (
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match="No pool here has this model"),
    ):
        client.completions.create(model="nothing", prompt="hi")


def test_both_rows_learn(stack):
    for model in ("chat", "code"):
        wait_for(lambda model=model: samples(stack, model) > 0)


def samples(stack, model):
    found = fetch(f"{stack.http}/state").json["categories"]
    return sum(each["samples"] for name, each in found.items() if name.endswith(f"/{model}"))
