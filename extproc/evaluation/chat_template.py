"""Chat templates that come with a tokenizer.json, rendered as vLLM renders them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from extproc.evaluation.options import EvaluationError

_FILE: Final = "chat_template.jinja"
_CONFIG: Final = "tokenizer_config.json"


class RefusedByTemplate(Exception):  # noqa: N818 - the request's fault, which vLLM answers with 400
    """The template does not accept the conversation, such as its order of roles."""


class ChatTemplate:
    """Renders the prompt of a body. Raises EvaluationError if the source is not a template."""

    def __init__(self, source: str, special: Mapping[str, str], file: Path) -> None:
        # As transformers does: utils/chat_template_utils.py.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        self._special = dict(special)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise EvaluationError(f"--tokenizer: {file}: the chat template: {error}") from None

    def render(self, body: Mapping[str, object]) -> str:
        """Return the text of the prompt. Raises RefusedByTemplate."""
        messages = body.get("messages")
        arguments = body.get("chat_template_kwargs")
        variables = {
            "messages": [_parsed(each) for each in messages] if isinstance(messages, list) else [],
            "tools": body.get("tools"),
            "documents": body.get("documents"),
            "add_generation_prompt": True,
            **self._special,
            **(arguments if isinstance(arguments, dict) else {}),
        }
        try:
            return self._template.render(variables)
        # Templates take the shapes of messages for granted.
        except (TemplateError, TypeError, ValueError) as error:
            raise RefusedByTemplate(str(error)) from None


def find_chat_template(tokenizer: Path) -> ChatTemplate | None:
    """Return the template beside a tokenizer.json, or None if there is none.

    Raises EvaluationError if it cannot be read.
    """
    file = tokenizer.with_name(_CONFIG)
    try:
        config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        own = tokenizer.with_name(_FILE)
        source = own.read_text(encoding="utf-8") if own.is_file() else config.get("chat_template")
    except (OSError, ValueError, AttributeError) as error:
        raise EvaluationError(f"--tokenizer: {file}: {error}") from None
    if not isinstance(source, str):
        return None
    tokens = {name: _token(config.get(name)) for name in ("bos_token", "eos_token")}
    return ChatTemplate(source, tokens, file)


def _token(value: object) -> str:
    match value:
        case str(text) | {"content": str(text)}:
            return text
        case _:
            return ""


def _parsed(message: object) -> object:
    """Return a message with the arguments of its calls as objects, and null content as empty."""
    # vLLM: renderers/chat_utils.py, _postprocess_messages.
    if not isinstance(message, dict):
        return message
    calls = [
        {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
        for call in message.get("tool_calls") or ()
        for function in [call["function"]]
    ]
    content = message.get("content")
    return {**message, "content": content or "", **({"tool_calls": calls} if calls else {})}


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise TemplateError(message)
