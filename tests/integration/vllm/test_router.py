"""Real vLLM behind the real Envoy, asked by the official client, which knows nothing of us."""

import json

import openai
import pytest

from tests.support.local_stack import fetch, running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    },
}
LONG = "many words here " * 1200  # about 3,600 tokens: more than 2048, less than 16384


@pytest.fixture
def client(vllm_stack):
    with openai.OpenAI(base_url=f"{vllm_stack.url}/v1", api_key="none", max_retries=0) as given:
        yield given


def user(text):
    return [{"role": "user", "content": text}]


def chat(client, text, **fields):
    """Return the parsed answer and the pool that gave it."""
    raw = client.chat.completions.with_raw_response.create(
        model="tiny-qwen", messages=user(text), max_tokens=8, **fields
    )
    return raw.parse(), raw.headers["x-llm-pool"]


def test_a_chat_goes_to_the_pool_that_fits(client):
    assert chat(client, "Where do owls sleep?")[1] == "short"
    assert chat(client, LONG)[1] == "long"


def test_a_stream_arrives_chunk_by_chunk_and_teaches(client, vllm_stack):
    before = samples(vllm_stack)
    stream = client.chat.completions.create(
        model="tiny-qwen",
        messages=user("The owl sat still. " * 20),
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) > 1
    assert chunks[-1].usage.prompt_tokens > 80
    wait_for(lambda: samples(vllm_stack) > before)


def samples(stack):
    return sum(figures["samples"] for figures in stack.state().values())


def test_a_tool_can_be_called(client):
    answer, pool = chat(
        client,
        "The weather in Rome?",
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        extra_body={"max_tokens": 64},
    )
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert pool == "short"


def test_a_prompt_that_is_too_long_gets_vllms_own_400(client, vllm_urls):
    body = {"model": "tiny-qwen", "messages": user(LONG * 6), "max_tokens": 8}
    direct = fetch(f"{vllm_urls[1]}/v1/chat/completions", body)
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, LONG * 6)
    assert refused.value.response.content == direct.body
    assert refused.value.param == "input_tokens"


def test_an_unknown_model_gets_vllms_own_404(client):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="nothing", messages=user("hi"))


def test_a_client_may_leave_in_mid_stream(client, vllm_stack, vllm_urls):
    stream = client.chat.completions.create(
        model="tiny-qwen",
        messages=user("Tell me everything."),
        stream=True,
        max_tokens=1500,
        extra_body={"ignore_eos": True},
    )
    for _, _ in zip(range(5), stream, strict=False):
        pass
    stream.close()
    wait_for(lambda: running_now(vllm_urls[0]) == 0)  # vLLM stops generating
    assert chat(client, "still there?")[1] == "short"


def running_now(url):
    text = fetch(f"{url}/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "tiny-qwen", "prompt": "Owls are", "max_tokens": 4}),
        ("/v1/completions", {"model": "tiny-qwen", "prompt": [[1, 2], [3]], "max_tokens": 4}),
        ("/v1/responses", {"model": "tiny-qwen", "input": "Owls?", "max_output_tokens": 16}),
        ("/v1/messages", {"model": "tiny-qwen", "messages": user("Owls?"), "max_tokens": 4}),
    ],
)
def test_every_api_is_routed_and_answered(vllm_stack, path, body):
    answer = vllm_stack.post(path, body)
    assert (answer.status, answer.pool) == (200, "short"), answer.body


@pytest.mark.parametrize("prompt", ["Owls are", LONG])
def test_tokenize_names_one_window_for_every_prompt(vllm_stack, prompt):
    answer = vllm_stack.post("/tokenize", {"model": "tiny-qwen", "prompt": prompt})
    assert (answer.status, answer.pool, answer.json["max_model_len"]) == (200, "long", 16384)
    assert json.loads(answer.body)


def test_an_answer_cut_by_the_window_is_counted_as_a_misroute(vllm_urls):
    # A token is one byte here; the paper's prior says four, so its budget falls short.
    body = {
        "model": "tiny-qwen",
        "messages": user("x1y2" * 300),
        "max_tokens": 1400,
        "ignore_eos": True,
    }
    with running(pools=vllm_urls, budget={"estimator": "paper"}) as stack:
        answer = stack.post("/v1/chat/completions", body)
        assert (answer.status, answer.pool) == (200, "short")
        assert answer.json["usage"]["total_tokens"] == 2048
        counted = 'dualpool_misroutes_total{kind="clamped",pool="short"}'
        wait_for(lambda: counted in stack.metrics())


@pytest.fixture(scope="module")
def storing(vllm_urls):
    """A stack whose largest pool stores responses."""
    stored = fetch(f"{vllm_urls[1]}/v1/responses", {"input": "hi", "max_output_tokens": 1})
    if fetch(f"{vllm_urls[1]}/v1/responses/{stored.json['id']}").status != 200:
        pytest.skip("the larger server does not store: set VLLM_ENABLE_RESPONSES_API_STORE=1")
    with running(pools=vllm_urls, requests={"stored_responses": "largest"}) as stack:
        yield stack


def respond(stack, **fields):
    body = {"model": "tiny-qwen", "input": "Owls?", "max_output_tokens": 16, **fields}
    return stack.post("/v1/responses", body)


def test_a_stored_response_can_be_fetched_and_continued(storing):
    first = respond(storing)
    assert (first.status, first.pool) == (200, "long")
    fetched = fetch(f"{storing.url}/v1/responses/{first.json['id']}")
    assert fetched.json["output"] == first.json["output"]
    then = respond(storing, input="And cats?", previous_response_id=first.json["id"])
    assert (then.status, then.pool) == (200, "long")
    assert then.json["usage"]["input_tokens"] > first.json["usage"]["input_tokens"]


def test_a_response_in_the_background_can_be_polled_and_cancelled(storing):
    made = respond(storing, background=True, max_output_tokens=4000)
    url = f"{storing.url}/v1/responses/{made.json['id']}"
    assert fetch(url).json["status"] in ("queued", "in_progress", "completed", "incomplete")
    assert fetch(f"{url}/cancel", b"").status in (200, 400)  # 400: it was complete already


def test_a_response_that_is_not_stored_goes_to_the_pool_that_fits(storing):
    answer = respond(storing, store=False)
    assert (answer.status, answer.pool) == (200, "short")
