"""Envoy's ext_proc messages about one request, in the default form, as the bytes that it sends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from extproc.names import HIDES_USAGE, NAMESPACE, USAGE_METADATA
from extproc.protos.envoy.config.core.v3.base_pb2 import HeaderMap
from extproc.protos.envoy.data.ai.v3.token_usage_pb2 import TokenUsage
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)

_COMPLETION_TOKENS: Final = 45


@dataclass(frozen=True, slots=True)
class RequestMessages:
    """What the router filter sends of one request: its headers, then its body."""

    head: bytes
    body: bytes


def request_messages(body: bytes, headers: Mapping[str, str] | None = None) -> RequestMessages:
    """Return the router's messages about a chat request with these further headers."""
    head = ProcessingRequest()
    head.protocol_config.request_body_mode = ProcessingMode.BUFFERED
    _fill(head.request_headers.headers, _request_headers(len(body)) | dict(headers or {}))
    head.metadata_context.filter_metadata[NAMESPACE].update({HIDES_USAGE: True})
    held = ProcessingRequest(request_body={"body": body, "end_of_stream": True})
    held.metadata_context.CopyFrom(head.metadata_context)
    return RequestMessages(head.SerializeToString(), held.SerializeToString())


def answer_messages(replies: Sequence[bytes], prompt_tokens: int | None) -> tuple[bytes, ...]:
    """Return the observer's messages about the answer to a request with these replies.

    prompt_tokens: of the usage; None for an answer with status 500.
    """
    answered = ProcessingRequest(observability_mode=True)
    answered.protocol_config.SetInParent()
    metadata = answered.metadata_context.filter_metadata[NAMESPACE]
    metadata.update({HIDES_USAGE: True})
    for reply in map(ProcessingResponse.FromString, replies):
        note = reply.dynamic_metadata.fields.get(NAMESPACE)
        if note is not None:
            metadata.MergeFrom(note.struct_value)
    status = "500" if prompt_tokens is None else "200"
    fields = {":status": status, "content-type": "application/json", "content-length": "285"}
    _fill(answered.response_headers.headers, fields)
    answered.attributes["envoy.filters.http.ext_proc"]["upstream.request_attempt_count"] = 1
    ended = ProcessingRequest(observability_mode=True, response_trailers={})
    ended.metadata_context.CopyFrom(answered.metadata_context)
    if prompt_tokens is not None:
        ended.metadata_context.typed_filter_metadata[USAGE_METADATA].Pack(_usage(prompt_tokens))
    return tuple(each.SerializeToString() for each in (answered, ended))


def _usage(prompt_tokens: int) -> TokenUsage:
    usage = TokenUsage(extraction_status=TokenUsage.COMPLETE)
    usage.input_tokens.value = prompt_tokens
    usage.output_tokens.value = _COMPLETION_TOKENS
    usage.total_tokens.value = prompt_tokens + _COMPLETION_TOKENS
    return usage


def _request_headers(body_bytes: int) -> dict[str, str]:
    return {
        ":authority": "127.0.0.1",
        ":path": "/v1/chat/completions",
        ":method": "POST",
        ":scheme": "http",
        "user-agent": "bench",
        "accept": "*/*",
        "content-type": "application/json",
        "content-length": str(body_bytes),
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-request-id": "5a2f0a3c-0f6e-4f6f-8f1b-5f0c1f7e3a10",
    }


def _fill(target: HeaderMap, headers: Mapping[str, str]) -> None:
    for key, value in headers.items():
        target.headers.add(key=key, raw_value=value.encode())
