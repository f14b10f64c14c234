"""Chat templates beside a tokenizer.json."""

import json

import pytest

from extproc.evaluation.chat_template import RefusedByTemplate, find_chat_template
from extproc.evaluation.options import EvaluationError

SAID = {"messages": [{"role": "user", "content": "Hello"}]}


def template(folder, source: object, **config):
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": source, **config}))
    return find_chat_template(folder / "tokenizer.json")


def test_a_tokenizer_without_a_template_has_none(tmp_path):
    assert find_chat_template(tmp_path / "tokenizer.json") is None
    assert template(tmp_path, None) is None


def test_the_template_sees_messages_special_tokens_and_arguments(tmp_path):
    source = "{{bos_token}}{{messages[0].content}}{% if add_generation_prompt %}{{mood}}{% endif %}"
    found = template(tmp_path, source, bos_token={"content": "<s>"})
    assert found.render({**SAID, "chat_template_kwargs": {"mood": "!"}}) == "<s>Hello!"


def test_a_file_of_its_own_comes_before_the_configuration(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("own")
    assert template(tmp_path, "other").render(SAID) == "own"


def test_tools_are_rendered_as_json_and_arguments_as_objects(tmp_path):
    source = "{{tools | tojson}} {{messages[0].tool_calls[0].function.arguments.id}}"
    call = {"function": {"name": "find", "arguments": '{"id": 7}'}}
    body = {"messages": [{"role": "assistant", "tool_calls": [call]}], "tools": [{"n": "\u732b"}]}
    assert template(tmp_path, source).render(body) == '[{"n": "\u732b"}] 7'


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{{ messages[0].content + 1 }}"])
def test_a_template_may_refuse_a_request(tmp_path, source):
    with pytest.raises(RefusedByTemplate):
        template(tmp_path, source).render(SAID)


def test_a_template_that_cannot_be_parsed_is_a_fault_of_the_file(tmp_path):
    with pytest.raises(EvaluationError, match=r"tokenizer_config\.json: the chat template: "):
        template(tmp_path, "{% if %}")


def test_a_configuration_that_is_not_json_is_a_fault(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"tokenizer_config\.json: "):
        find_chat_template(tmp_path / "tokenizer.json")
