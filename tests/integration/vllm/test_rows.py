"""Two models of real vLLM in two rows, one of them with three pools and an adapter.

The settings differ from what the servers state: in a window, in a name, and in a row without any.
"""

import json
import struct
import urllib.request
from contextlib import ExitStack

import openai
import pytest

from tests.support.local_stack import fetch
from tests.support.production_stack import wait_for
from tests.support.rows_stack import ask, fronted_rows
from tests.support.vllm_servers import end, wait_until_healthy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

# name: port, max_model_len, max_num_seqs
CHAT = {
    "chat-short": (8151, 1024, 16),
    "chat-medium": (8152, 4096, 8),
    "chat-long": (8153, 16384, 4),
}
CODE = {"code-short": (8154, 2048, 16), "code-long": (8155, 16384, 4)}
STATED = 8192  # in the settings, for chat-medium
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
def stack(installation, tmp_path_factory):
    adapter = tmp_path_factory.mktemp("adapter")
    with open(installation.folder / "models/tiny-qwen/config.json") as file:
        write_adapter(adapter, json.load(file))
    names = ["--served-model-name", "chat", "chat-v2", "--enable-lora", "--max-lora-rank", "8"]
    chat = [*names, "--lora-modules", f"sql-lora={adapter}"]
    code = ["--served-model-name", "code"]
    with ExitStack() as servers:
        start = installation.start
        pids = [start(core % 2, *pool, flags=chat) for core, pool in enumerate(CHAT.values())]
        pids += [
            start(core, *pool, model="tiny-llama", flags=code)
            for core, pool in enumerate(CODE.values())
        ]
        servers.callback(end, *pids)
        urls = [f"http://127.0.0.1:{port}" for port, *_ in (CHAT | CODE).values()]
        wait_until_healthy(urls, seconds=600)  # five at once, on few cores
        rows = [
            {"models": ["chat", "chat-*", "sql-lora"], "pools": described(CHAT)},
            {"models": ["code", "code-v2"], "pools": described(CODE)},
            {"models": ["absent"], "pools": described({"absent": (8156, 512, 1)})},
        ]
        rows[0]["pools"][1]["max_model_len"] = STATED
        folder = tmp_path_factory.mktemp("rows")
        found = servers.enter_context(fronted_rows(folder, rows, "chat", {"discover": True}))
        wait_for(lambda: all(discovered(found, name)["answered"] for name in CHAT | CODE))
        yield found


def described(pools):
    return [
        {"name": name, "max_model_len": window, "address": f"127.0.0.1:{port}"}
        for name, (port, window, _) in pools.items()
    ]


def discovered(stack, pool):
    return fetch(f"{stack.http}/state").json["discovered"].get(pool, {"answered": 0})


def test_models_aliases_and_adapters_are_counted_before_their_first_answer(stack):
    names = ("chat-v2", "sql-lora", "code")

    def models():
        return fetch(f"{stack.http}/state").json["models"]

    wait_for(lambda: all(name in models() for name in names))
    known = [models()[name] for name in names]
    assert {each["samples"] for each in known} == {0}
    # What a template adds to a message is learnt, and differs.
    alias, adapter, code = (each["template_messages"] for each in known)
    assert alias == adapter != code


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
    assert (answer.status, answer.pool, answer.json["model"]) == (200, pool, called(model))


def called(model):
    """What vLLM calls a model in its answers: an alias by the first of its names."""
    return "chat" if model.startswith("chat") else model


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


def test_the_window_of_a_server_counts_where_it_is_smaller(stack):
    found = discovered(stack, "chat-medium")
    assert (found["used"], found["max_model_len"]) == (4096, {"4096": 1})


def test_another_window_than_the_settings_state_is_told_everywhere(stack):
    assert 'dualpool_pool_disagreements{kind="window",pool="chat-medium"} 1.0' in stack.metrics()
    told = "pool chat-medium: its servers state max_model_len 4096, the settings 8192: 4096 counts"
    assert told in stack.log.read_text()
    with urllib.request.urlopen(f"{stack.http}/page/events", timeout=20) as events:
        assert events.readline() == b"event: now\n"
        pools = json.loads(events.readline().removeprefix(b"data: "))["pools"]
    [shown] = [pool for pool in pools if pool["name"] == "chat-medium"]
    assert (shown["window"], shown["stated"]) == (4096, STATED)


def test_aliases_and_adapters_are_found(stack):
    found = discovered(stack, "chat-long")
    assert (found["models"], found["adapters"]) == (["chat", "chat-v2"], ["sql-lora"])


def test_a_name_of_a_row_that_a_server_lacks_is_told(stack):
    assert discovered(stack, "code-long")["missing"] == ["code-v2"]
    assert 'dualpool_pool_disagreements{kind="missing",pool="code-long"} 1.0' in stack.metrics()


def test_the_settings_count_for_a_server_that_does_not_answer(stack):
    refused = 'dualpool_pool_polls_total{outcome="refused",pool="absent",question="models"}'
    wait_for(lambda: refused in stack.metrics())
    found = discovered(stack, "absent")
    assert (found["used"], found["answered"]) == (512, 0)
