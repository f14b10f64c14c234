"""Which paths are read, against the routes that vLLM 0.32 has."""

import pytest

from extproc.request.apis import APIS, Endpoint, endpoint
from tests.support.local_stack import fetch

# vllm/entrypoints/**/api_router.py of vLLM 0.32.0: every route, whatever a server is started with,
# but for those of its development mode.
ROUTES = {
    "/v1/chat/completions": Endpoint.CHAT,
    "/v1/chat/completions/batch": Endpoint.OTHER_CHAT,
    "/v1/chat/completions/render": Endpoint.TOKENIZE,
    "/v1/chat/completions/derender": None,
    "/cohere/v2/chat": Endpoint.OTHER_CHAT,
    "/cohere/v2/chat/render": Endpoint.TOKENIZE,
    "/v1/completions": Endpoint.COMPLETION,
    "/v1/completions/render": Endpoint.TOKENIZE,
    "/v1/completions/derender": None,
    "/v1/responses": Endpoint.RESPONSES,
    "/v1/responses/render": Endpoint.TOKENIZE,
    "/v1/responses/{response_id}": None,
    "/v1/responses/{response_id}/cancel": None,
    "/v1/messages": Endpoint.MESSAGES,
    "/v1/messages/count_tokens": Endpoint.TOKENIZE,
    "/v1/messages/render": Endpoint.TOKENIZE,
    "/v1/embeddings": Endpoint.EMBEDDING,
    "/v2/embed": Endpoint.EMBEDDING,
    "/classify": Endpoint.EMBEDDING,
    "/pooling": Endpoint.EMBEDDING,
    "/score": Endpoint.SCORE,
    "/v1/score": Endpoint.SCORE,
    "/rerank": Endpoint.SCORE,
    "/v1/rerank": Endpoint.SCORE,
    "/v2/rerank": Endpoint.SCORE,
    "/generative_scoring": Endpoint.SCORE,
    "/tokenize": Endpoint.TOKENIZE,
    "/detokenize": None,
    "/v1/audio/transcriptions": None,
    "/v1/audio/translations": None,
    "/v1/realtime": None,
    "/v1/systemone": None,
    "/v1/models": None,
    "/v1/load_lora_adapter": None,
    "/v1/unload_lora_adapter": None,
    "/inference/v1/generate": None,
    "/inference/v1/abort_requests": None,
    "/abort_requests": None,
    "/invocations": None,
    "/ping": None,
    "/load": None,
    "/version": None,
    "/health": None,
    "/metrics": None,
    "/kv_event_sources": None,
    "/tokenizer_info": None,
    "/scale_elastic_ep": None,
    "/is_scaling_elastic_ep": None,
    "/start_profile": None,
    "/stop_profile": None,
    "/fault_tolerance/apply": None,
    "/fault_tolerance/status": None,
}


@pytest.mark.parametrize(("path", "expected"), ROUTES.items())
def test_a_route_is_known_by_its_path(path, expected):
    assert endpoint(path) is expected


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/api/v1/chat/completions",
        "/team/a/openai/v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions?timeout=5&x=/v1/models",
        "chat/completions",
    ],
)
def test_a_prefix_a_query_and_a_last_slash_do_not_matter(path):
    assert endpoint(path) is Endpoint.CHAT


@pytest.mark.parametrize(
    "path", ["", "/", "*", "/v1", "?/v1/completions", "/v1/completions/x", "/v1/completionsx"]
)
def test_another_path_is_not_read(path):
    assert endpoint(path) is None


@pytest.mark.parametrize("kind", Endpoint)
def test_every_endpoint_has_an_api(kind):
    api = APIS[kind]
    assert {*api.prompts, *api.conversations, *api.headings} <= set(api.prompt)
    assert not set(api.prompts) & set(api.conversations)


@pytest.mark.parametrize("kind", Endpoint)
def test_what_generates_states_its_limit(kind):
    assert APIS[kind].generates == bool(APIS[kind].limits)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_real_vllm_has_no_other_routes(vllm_urls):
    assert set(fetch(f"{vllm_urls[0]}/openapi.json").json["paths"]) <= set(ROUTES)
