from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class LLMProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LLM_PROTOCOL_UNSPECIFIED: _ClassVar[LLMProtocol]
    OPENAI_CHAT_COMPLETIONS: _ClassVar[LLMProtocol]
    OPENAI_RESPONSES: _ClassVar[LLMProtocol]
    ANTHROPIC_MESSAGES: _ClassVar[LLMProtocol]
    GEMINI_GENERATE_CONTENT: _ClassVar[LLMProtocol]
LLM_PROTOCOL_UNSPECIFIED: LLMProtocol
OPENAI_CHAT_COMPLETIONS: LLMProtocol
OPENAI_RESPONSES: LLMProtocol
ANTHROPIC_MESSAGES: LLMProtocol
GEMINI_GENERATE_CONTENT: LLMProtocol
