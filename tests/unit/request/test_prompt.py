"""What a key of a body says its value is."""

import pytest

from extproc.request.fields import MAX_ENTRIES, TooManyNodesError
from extproc.request.image import UNKNOWN, Image
from extproc.request.prompt import MAX_IMAGES, Optional, PromptReader

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def read(value: object) -> PromptReader:
    prompt = PromptReader()
    prompt.read(value)
    return prompt


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("hi", ["hi"]),
        (["a", "", "b"], ["a", "b"]),
        ({"role": "user", "content": "hi"}, ["hi"]),
        ({"role": "user", "name": "bob", "content": "hi"}, ["bob", "hi"]),
        ([{"content": [{"type": "text", "text": "a"}, "b"]}, {"content": "c"}], ["a", "b", "c"]),
        ([[{"content": "a"}], [{"content": "b"}]], ["a", "b"]),
        ({"type": "input_text", "text": "hi"}, ["hi"]),
        ({"type": "output_text", "text": "hi", "annotations": []}, ["hi"]),
        ({"type": "refusal", "refusal": "no"}, ["no"]),
        ({"type": "thinking", "thinking": "hm", "signature": "c2ln"}, ["hm"]),
        ({"type": "redacted_thinking", "data": "c2ln"}, []),
        ({"role": "assistant", "reasoning": "hm", "content": "x"}, ["hm", "x"]),
        ({"role": "assistant", "reasoning_content": "hm", "content": None}, ["hm"]),
        ({"reasoning": "hm", "reasoning_content": "hm", "content": "x"}, ["hm", "x"]),
        ({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}, ["hm"]),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, ["hm"]),
        ({"type": "tool_reference", "name": "f"}, ["f"]),
        ({"type": "tool_reference", "tool_name": "f"}, ["f"]),
        ({"role": "assistant", "tool_plan": "first f"}, ["first f"]),
        ({"type": "document", "document": {"data": {"a": "b"}}}, ['{"data":{"a":"b"}}']),
        ({"type": "function_call_output", "call_id": "1", "output": "sun"}, ["sun"]),
        ({"type": "function_call_output", "output": [{"text": "sun"}]}, ["sun"]),
        ({"type": "tool_result", "tool_use_id": "1", "content": [{"text": "sun"}]}, ["sun"]),
    ],
)
def test_texts_are_found(value, texts):
    assert read(value).texts == texts


@pytest.mark.parametrize(
    ("call", "texts"),
    [
        (
            {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
            ["f", '{"a": 1}'],
        ),
        ({"function_call": {"name": "f", "arguments": {"a": 1}}}, ["f", '{"a":1}']),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, ["f", "{}"]),
        ({"type": "custom_tool_call", "name": "f", "input": "a"}, ["f", "a"]),
        ({"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}, ["f", '{"a":1}']),
    ],
)
def test_a_tool_call_counts_with_its_name_and_arguments(call, texts):
    prompt = read(call)
    assert (prompt.tools, prompt.texts) == (1, texts)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "developer", "content": None, "tools": [{"name": "f"}]},
        {"type": "tool_addition", "tool": {"definition": {"name": "f"}}},
    ],
)
def test_a_message_may_define_tools(message):
    prompt = read(message)
    assert (prompt.tools, prompt.texts) == (1, ['{"name":"f"}'])


def test_a_tool_definition_counts_at_the_length_of_compact_json():
    prompt = PromptReader()
    prompt.read_tools([{"type": "function", "function": {"name": "é", "parameters": {}}}, "x", 5])
    assert prompt.texts == ['{"type":"function","function":{"name":"é","parameters":{}}}', "x"]
    assert prompt.tools == 3


@pytest.mark.parametrize(
    "value",
    [
        {"type": "json_schema", "json_schema": {"a": 1}},
        {"format": {"type": "json_schema", "name": "x", "schema": {"a": 1}}},
        {"type": "json_object", "schema": {"a": 1}},
    ],
)
def test_a_schema_is_found_where_each_api_has_it(value):
    prompt = PromptReader()
    prompt.read_schema(value)
    assert (prompt.texts, prompt.optional) == ([], {Optional.SCHEMA: ['{"a":1}']})


@pytest.mark.parametrize("value", [{"type": "text"}, {"format": {"type": "text"}}, "json", [1]])
def test_a_format_without_a_schema_has_no_text(value):
    prompt = PromptReader()
    prompt.read_schema(value)
    assert (prompt.texts, prompt.optional) == ([], {})


def test_a_document_is_read_as_json_or_as_it_is():
    prompt = PromptReader()
    prompt.read_documents(["a", {"title": "b"}, {}, 5])
    assert prompt.optional == {Optional.DOCUMENTS: ["a", '{"title":"b"}', "{}"]}


USER, TOOL_RESULT = {"role": "user", "content": "u"}, [{"type": "tool_result", "content": "r"}]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "reasoning": "old"},
        {"role": "assistant", "reasoning_content": "old"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "old"}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "old"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "old"}]},
    ],
)
def test_reasoning_before_the_last_turn_of_the_user_may_be_dropped(turn):
    past, current = PromptReader(), PromptReader()
    past.read_conversation([USER, turn, USER])
    current.read_conversation([USER, turn])
    assert (past.texts, past.optional) == (["u", "u"], {Optional.PAST_REASONING: ["old"]})
    assert (current.texts, current.optional) == (["u", "old"], {})


THOUGHT = "<think>hm</think>"


@pytest.mark.parametrize(
    ("content", "past", "texts"),
    [
        (THOUGHT + "yes", [THOUGHT], ["yes"]),
        ([{"type": "text", "text": THOUGHT + "yes"}], [THOUGHT], ["yes"]),
        ("hm</think>yes", ["hm</think>"], ["yes"]),  # the template may have begun the thought
        ("[THINK]hm[/THINK]yes", ["[THINK]hm[/THINK]"], ["yes"]),
        ("a</think>b</think>c", ["a</think>b</think>"], ["c"]),
        (THOUGHT, [THOUGHT], []),
        ("<think>hm", [], ["<think>hm"]),
    ],
)
def test_a_thought_within_an_earlier_answer_may_be_dropped(content, past, texts):
    prompt = PromptReader()
    prompt.read_conversation([{"role": "assistant", "content": content}, USER])
    assert prompt.optional.get(Optional.PAST_REASONING, []) == past
    assert prompt.texts == [*texts, "u"]


@pytest.mark.parametrize(
    "turns",
    [
        [USER, {"role": "assistant", "content": THOUGHT}],
        [{"role": "user", "content": THOUGHT}, USER],
        [[{"role": "assistant", "content": "x"}, USER], [USER, {"content": THOUGHT}]],
    ],
)
def test_a_thought_of_this_turn_or_of_the_user_is_text(turns):
    prompt = PromptReader()
    prompt.read_conversation(turns)
    assert THOUGHT in prompt.texts
    assert not prompt.optional


def test_a_million_thoughts_are_one_text():
    prompt = PromptReader()
    prompt.read_conversation([{"role": "assistant", "content": "</think>" * 1_000_000}, USER])
    assert prompt.optional == {Optional.PAST_REASONING: ["</think>" * 1_000_000]}


def test_a_tool_result_in_the_users_role_does_not_end_the_turn():
    prompt = PromptReader()
    thought = {"role": "assistant", "reasoning": "new"}
    prompt.read_conversation([USER, thought, {"role": "user", "content": TOOL_RESULT}])
    assert (prompt.texts, prompt.optional) == (["u", "new", "r"], {})


def test_each_of_several_conversations_has_its_own_last_turn():
    prompt = PromptReader()
    thought = {"role": "assistant", "reasoning": "t"}
    prompt.read_conversation([[USER, thought, USER], [USER, thought]])
    assert prompt.texts == ["u", "u", "u", "t"]
    assert prompt.optional == {Optional.PAST_REASONING: ["t"]}


@pytest.mark.parametrize("value", ["text", 5, None, [5, None], {"role": "user", "reasoning": {}}])
def test_any_value_is_a_conversation(value):
    PromptReader().read_conversation(value)


def test_arguments_of_the_template_may_be_dropped():
    prompt = PromptReader()
    prompt.read_arguments({"documents": ["a"]})
    assert prompt.optional == {Optional.TEMPLATE_ARGUMENTS: ['{"documents":["a"]}']}


def test_tools_that_must_not_be_called_may_be_dropped():
    prompt = PromptReader()
    prompt.read_unused_tools([{"name": "f"}])
    assert (prompt.tools, prompt.optional) == (0, {Optional.UNUSED_TOOLS: ['{"name":"f"}']})


@pytest.mark.parametrize(
    ("value", "ids"),
    [([1, 2, 3], 3), ([[1, 2], [3]], 3), ([], 0), ([[]], 0), ([1.0, 2.0], 2), ([True], 1)],
)
def test_token_ids_are_counted(value, ids):
    prompt = read(value)
    assert (prompt.token_ids, prompt.texts) == (ids, [])


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PIXEL}},
        {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
        {"type": "image", "source": {"type": "base64", "data": PIXEL.partition(",")[2]}},
    ],
)
def test_an_image_is_measured_and_its_base64_is_no_text(part):
    prompt = read({"content": [part]})
    assert (prompt.images, prompt.texts) == ([Image(width=1, height=1)], [])


@pytest.mark.parametrize("part", [{"image_embeds": "AAAA"}, {"image_url": None, "uuid": "1"}])
def test_an_image_without_a_header_counts_too(part):
    assert read(part).images == [UNKNOWN]


@pytest.mark.parametrize(
    ("part", "audios", "videos"),
    [
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, 1, 0),
        ({"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,AAAA"}}, 1, 0),
        ({"type": "audio_embeds", "audio_embeds": "AAAA"}, 1, 0),
        ({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}, 0, 1),
        ({"type": "video_embeds", "video_embeds": "AAAA"}, 0, 1),
        ({"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf"}}, 0, 0),
        ({"type": "input_file", "file_data": "AAAA", "filename": "a.pdf"}, 0, 0),
    ],
)
def test_base64_of_other_media_is_no_text(part, audios, videos):
    prompt = read({"content": [part]})
    assert (prompt.audios, prompt.videos, prompt.texts) == (audios, videos, [])


def test_images_by_url_are_read():
    prompt = PromptReader()
    prompt.read_images([PIXEL, "https://example.com/a.png"])
    assert prompt.images == [Image(width=1, height=1), UNKNOWN]


def test_more_images_than_are_read_have_the_sizes_of_those_that_are():
    first = [PIXEL, *["https://example.com/a.png"] * (MAX_IMAGES - 1)]
    prompt = read([{"image_url": image} for image in (*first, "x", PIXEL)])
    assert len(prompt.images) == MAX_IMAGES + 2
    assert prompt.images[MAX_IMAGES:] == [Image(width=1, height=1), UNKNOWN]


def test_the_number_of_images_is_bounded():
    with pytest.raises(TooManyNodesError):
        PromptReader().read_images([""] * (MAX_ENTRIES + 1))


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ({"type": "text", "media_type": "text/plain", "data": "owls"}, ["owls"]),
        ({"type": "content", "content": "owls"}, ["owls"]),
        ({"type": "content", "content": [{"type": "text", "text": "owls"}]}, ["owls"]),
        ("https://example.com/owls", ["https://example.com/owls"]),
    ],
)
def test_a_source_of_text_is_no_image(source, texts):
    prompt = read([{"type": "document", "source": source}])
    assert (prompt.texts, prompt.images) == (texts, [])


def test_a_source_of_bytes_or_an_address_is_an_image():
    sources = [{"type": "base64", "data": PIXEL[22:]}, {"type": "url", "url": PIXEL}]
    prompt = read([{"type": "image", "source": source} for source in sources])
    assert prompt.images == [Image(width=1, height=1)] * 2


@pytest.mark.parametrize("wrong", [None, 5, 0.5, True, {}, [], {"role": 5, "content": 5}])
@pytest.mark.parametrize(
    "read", [PromptReader.read, PromptReader.read_tools, PromptReader.read_schema]
)
def test_what_is_not_of_its_type_is_passed_over(read, wrong):
    prompt = PromptReader()
    read(prompt, wrong)
    assert prompt.texts == prompt.images == []


@pytest.mark.parametrize(
    "read",
    [
        PromptReader.read_text,
        PromptReader.read_documents,
        PromptReader.read_images,
        PromptReader.read_tools,
    ],
)
def test_what_should_be_a_list_and_is_an_object_is_passed_over(read):
    prompt = PromptReader()
    read(prompt, {"text": "hi"})
    assert (prompt.texts, prompt.images, prompt.tools) == ([], [], 0)


def test_a_walk_is_as_deep_as_it_must_be():
    node: object = "deep"
    for _ in range(MAX_ENTRIES // 2):  # a list's entry, and an object
        node = [{"content": node}]
    assert read(node).texts == ["deep"]


@pytest.mark.parametrize("read", [PromptReader.read, PromptReader.read_conversation])
def test_a_walk_is_bounded(read):
    read(PromptReader(), ["a"] * MAX_ENTRIES if read is PromptReader.read else ["a"] * 1000)
    with pytest.raises(TooManyNodesError):
        read(PromptReader(), [["a"] * (MAX_ENTRIES // 2)] * 2)


def test_objects_count_as_much_as_the_entries_of_lists():
    PromptReader().read([{}] * (MAX_ENTRIES // 2))
    with pytest.raises(TooManyNodesError):
        PromptReader().read([{}] * (MAX_ENTRIES // 2 + 1))


@pytest.mark.parametrize("item", [{"type": "reasoning", "summary": "x"}, {"type": "reasoning"}])
def test_past_reasoning_of_another_shape_is_passed_over(item):
    prompt = PromptReader()
    prompt.read_conversation([{**item, "content": ["x", {"text": "old"}]}, USER])
    assert prompt.optional == {Optional.PAST_REASONING: ["old"]}


def test_of_template_arguments_the_instruction_alone_is_rendered():
    prompt = PromptReader()
    prompt.read_arguments({"instruction": "find", "tone": "dry"})
    assert prompt.texts == ["find"]
    assert prompt.optional == {Optional.TEMPLATE_ARGUMENTS: ['{"tone":"dry"}']}
