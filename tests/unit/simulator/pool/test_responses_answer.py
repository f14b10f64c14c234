"""The answers of /v1/responses, as vLLM 0.32 wrote them."""

import json

from extproc.simulator.pool.answer import AnswerUsage, Piece
from extproc.simulator.pool.responses import Responses
from extproc.simulator.pool.responses_answer import ResponsesForm

USAGE = AnswerUsage(prompt_tokens=10, completion_tokens=3)
ENDS = (
    b'"user":null,"presence_penalty":0.0,"frequency_penalty":0.0,"kv_transfer_params":null,'
    b'"ec_transfer_params":null,"input_messages":null,"output_messages":null}'
)


def form() -> ResponsesForm:
    stated = Responses(input="hi", tool_choice="none").describe("m", 3)
    return ResponsesForm("resp_88c7", 1795846590, stated)


def events(sent: bytes) -> list[tuple[str, dict[str, object]]]:
    *lines, rest = sent.decode().split("\n\n")
    assert rest == ""
    pairs = [line.removeprefix("event: ").split("\ndata: ") for line in lines]
    return [(kind, json.loads(data)) for kind, data in pairs]


def stream(*pieces: Piece) -> bytes:
    given = form()
    sent = given.begin() + given.opening(0, None)
    return sent + b"".join(given.piece(piece, None) for piece in pieces) + given.close(USAGE)


def test_a_whole_answer():
    given = form()
    body = given.whole([Piece(0, " sage", "length")], USAGE)
    message = json.loads(body)["output"][0]["id"].encode()
    assert message.startswith(b"msg_")
    assert body == (
        b'{"id":"resp_88c7","created_at":1795846590,'
        b'"incomplete_details":{"reason":"max_output_tokens"},"instructions":null,"metadata":null,'
        b'"model":"m","object":"response","output":[{"id":"' + message + b'",'
        b'"content":[{"annotations":[],"text":" sage","type":"output_text","logprobs":null}],'
        b'"role":"assistant","status":"completed","type":"message","phase":null}],'
        b'"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"none","tools":[],'
        b'"top_p":1.0,"background":false,"max_output_tokens":3,"max_tool_calls":null,'
        b'"previous_response_id":null,"prompt":null,"reasoning":null,"service_tier":"auto",'
        b'"status":"incomplete","text":null,"top_logprobs":null,"truncation":"disabled",'
        b'"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":0,'
        b'"cache_write_tokens":0,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]},'
        b'"output_tokens":3,"output_tokens_details":{"reasoning_tokens":0,"tool_output_tokens":0,'
        b'"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]},"total_tokens":13},' + ENDS
    )


def test_a_stream_has_the_events_of_vllm_in_order():
    kinds = [kind for kind, _ in events(stream(Piece(0, " a"), Piece(0, " b", "length")))]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_events_are_numbered_and_name_their_kind():
    found = events(stream(Piece(0, " a", "length")))
    assert [body["sequence_number"] for _, body in found] == list(range(len(found)))
    assert all(body["type"] == kind for kind, body in found)


def test_the_events_of_a_text():
    sent = stream(Piece(0, " a", "length"))
    message = events(sent)[2][1]["item"]["id"].encode()
    assert (
        b'data: {"content_index":0,"delta":" a","item_id":"' + message + b'","logprobs":[],'
        b'"output_index":0,"sequence_number":4,"type":"response.output_text.delta"}\n\n'
        b"event: response.output_text.done\n"
        b'data: {"content_index":0,"item_id":"' + message + b'","logprobs":[],"output_index":0,'
        b'"sequence_number":5,"text":" a","type":"response.output_text.done"}\n\n'
    ) in sent


def test_the_response_is_complete_only_in_the_last_event():
    found = events(stream(Piece(0, " a", "stop")))
    first, last = found[0][1]["response"], found[-1][1]["response"]
    assert (first["status"], first["usage"], first["output"]) == ("in_progress", None, [])
    assert (last["status"], last["incomplete_details"]) == ("completed", None)
    assert last["usage"]["total_tokens"] == 13
    assert last["output"][0]["content"][0]["text"] == " a"


def test_a_stream_without_text_has_no_message():
    kinds = [kind for kind, _ in events(stream(Piece(0, "", "stop")))]
    assert kinds == ["response.created", "response.in_progress", "response.completed"]
