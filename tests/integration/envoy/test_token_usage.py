"""What Envoy's ai_protocol_manager reads of vLLM's answers, beside what the service reads."""

import pytest

from extproc.response.reader import UsageReader
from extproc.response.usage import Usage
from tests.support.local_stack import wait_for
from tests.support.recorded_pool import RESPONSES, recorded, replaying

pytestmark = pytest.mark.slow

ANSWERS = {
    file.stem: file.read_bytes().splitlines()[2].split()[-1].decode()  # the path that was asked
    for file in sorted(RESPONSES.glob("*.http"))
    if file.read_bytes().startswith(b"HTTP/1.1 200")
}
# Counts of tokens, which the service can read: Envoy sees no usage in them.
COUNTS = {"message-count", "tokenize-chat", "tokenize-prompt"}


@pytest.fixture(scope="module")
def envoy():
    with replaying() as given:
        yield given


def read(kind, body):
    reader = UsageReader(200, kind, "")
    reader.feed(body)
    usage = reader.finish()
    if not isinstance(usage, Usage):
        return None
    return usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens


@pytest.mark.parametrize("name", ANSWERS)
def test_envoy_reads_what_the_service_reads_and_alters_nothing(envoy, name):
    kind, body = recorded(name)
    before, middle = found(envoy), len(body) // 2
    assert envoy.ask(kind, [body[:middle], body[middle:]], ANSWERS[name], hide=False) == body
    stated = None if name in COUNTS else read(kind, body)
    wait_for(lambda: found(envoy) == before + (stated is not None))
    assert stated is None or told(envoy, before + 1) == stated


def found(envoy):
    return envoy.counted("ai_protocol_manager").get("ai_protocol_manager.token_usage_found", 0)


def told(envoy, count):
    wait_for(lambda: len(envoy.usages) == count)
    usage = envoy.usages[-1]
    cached = usage.input_token_details.cached_tokens.value
    return usage.input_tokens.value, usage.output_tokens.value, cached
