"""Which paths are read, against the routes that vLLM 0.32 has."""

import re

import pytest

from extproc.request.apis import APIS, Endpoint, api_of, endpoint, path_regex, typical_path
from tests.support.local_stack import fetch

# vllm/entrypoints/**/api_router.py of vLLM 0.32.0: every route, whatever a server is started with,
# but for those of its development mode.
ROUTES = {
    "/v1/chat/completions": Endpoint.CHAT,
    "/v1/chat/completions/batch": Endpoint.OTHER_CHAT,
    "/v1/chat/completions/render": None,
    "/v1/chat/completions/derender": None,
    "/cohere/v2/chat": Endpoint.OTHER_CHAT,
    "/cohere/v2/chat/render": None,
    "/v1/completions": Endpoint.COMPLETION,
    "/v1/completions/render": None,
    "/v1/completions/derender": None,
    "/v1/responses": Endpoint.RESPONSES,
    "/v1/responses/render": None,
    "/v1/responses/{response_id}": None,
    "/v1/responses/{response_id}/cancel": None,
    "/v1/messages": Endpoint.MESSAGES,
    "/v1/messages/count_tokens": None,
    "/v1/messages/render": None,
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
    "/tokenize": None,
    "/detokenize": None,
    "/v1/audio/transcriptions": None,
    "/v1/audio/translations": None,
    "/v1/realtime": None,
    "/v1/systemone": None,
    "/v1/models": None,
    "/v1/load_lora_adapter": None,
    "/v1/unload_lora_adapter": None,
    "/inference/v1/generate": Endpoint.GENERATE,
    "/inference/v1/abort_requests": None,
    "/abort_requests": None,
    "/invocations": Endpoint.INVOCATIONS,
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


APIS_OF_THEIR_OWN = [kind for kind in Endpoint if kind is not Endpoint.INVOCATIONS]


@pytest.mark.parametrize("path", ["/v1%2Fchat%2Fcompletions", "/v1/chat%2fcompletions?x=%2F"])
def test_an_escaped_slash_is_a_slash(path):
    assert endpoint(path) is Endpoint.CHAT


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"messages": [], "prompt": ""}, Endpoint.CHAT),
        ({"prompt": "", "input": ""}, Endpoint.COMPLETION),
        ({"input": ""}, Endpoint.EMBEDDING),
        ({"text_1": "", "text_2": ""}, Endpoint.SCORE),
        ({}, Endpoint.CHAT),
    ],
)
def test_an_invocation_is_of_the_api_that_its_fields_show(body, kind):
    assert api_of(Endpoint.INVOCATIONS, body) is APIS[kind]


@pytest.mark.parametrize("kind", APIS_OF_THEIR_OWN)
def test_every_endpoint_has_an_api(kind):
    api = APIS[kind]
    assert {*api.prompts, *api.conversations, *api.headings} <= set(api.prompt)
    assert not set(api.prompts) & set(api.conversations)


@pytest.mark.parametrize("kind", APIS_OF_THEIR_OWN)
def test_what_generates_states_its_limit(kind):
    assert APIS[kind].generates == bool(APIS[kind].limits)


def test_two_apis_state_the_usage_of_a_stream_only_if_asked():
    optional = {kind for kind, api in APIS.items() if api.usage_optional}
    assert optional == {Endpoint.CHAT, Endpoint.COMPLETION}


def test_only_answers_of_the_responses_api_are_stored():
    assert {kind for kind, api in APIS.items() if api.stores} == {Endpoint.RESPONSES}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_real_vllm_has_no_other_routes(vllm_urls):
    assert set(fetch(f"{vllm_urls[0]}/openapi.json").json["paths"]) <= set(ROUTES)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_a_body_of_the_common_apis_tells_its_path(path):
    field = {"completions": "prompt", "responses": "input"}.get(path[4:], "messages")
    assert typical_path({"model": "m", field: "hi", "max_tokens": 1}) == path


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"input": "x", "encoding_format": "float"}, "/v1/embeddings"),
        ({"query": "x", "documents": ["y"]}, "/v1/rerank"),
        ({"text_1": "x", "text_2": "y"}, "/v1/score"),
        ({"token_ids": [1]}, "/inference/v1/generate"),
        ({"model": "m"}, "/v1/chat/completions"),
    ],
)
def test_a_body_of_another_api_tells_its_path(fields, path):
    assert typical_path(fields) == path
    assert endpoint(path) is not None


@pytest.mark.parametrize("path", [f"/any/prefix{path}" for path in ROUTES])
def test_envoy_matches_the_paths_that_the_service_reads(path):
    matches = re.fullmatch(path_regex(*Endpoint), path)
    assert bool(matches) == (endpoint(path) is not None)
