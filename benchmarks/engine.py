"""The service without a transport, in this process: messages of Envoy's in, replies out."""

import math
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry

from benchmarks.messages import RequestMessages, answer_messages
from extproc.build import build_learner
from extproc.config.settings import Settings
from extproc.service.build import build_stages
from extproc.service.memory import keep_large_buffers
from extproc.service.places import Deadline
from extproc.service.streams import Bounds, Streams

_PEER: Final = "127.0.0.1:1"


class Engine:
    """All that one process of the service does with a stream's messages; needs a running loop."""

    def __init__(self, settings: Settings) -> None:
        keep_large_buffers()
        self.registry, self.learner = CollectorRegistry(), build_learner(settings)
        stages = build_stages(settings, self.learner, self.learner.learn, self.registry, b"")
        bounds = Bounds(message_bytes=1 << 30)
        self._streams = Streams(stages, bounds, lambda: False)

    def decide(self, request: RequestMessages) -> list[bytes]:
        """Return the replies to the router's stream about a request."""
        return self._stream((request.head, request.body))

    def observe(self, answer: Sequence[bytes]) -> None:
        """Pass the observer's stream about an answer."""
        self._stream(answer)

    def teach(self, request: RequestMessages, prompt_tokens: int) -> None:
        """Decide a request and observe its answer."""
        self.observe(answer_messages(self.decide(request), prompt_tokens))

    def _stream(self, messages: Sequence[bytes]) -> list[bytes]:
        stream = self._streams.open(_PEER, Deadline(math.inf))
        assert stream is not None, "there is a place"  # noqa: S101 - for the type
        replies = [reply for message in messages for reply in stream.receive(message)]
        stream.close()
        return replies
