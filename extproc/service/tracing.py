"""Traces of decisions and of what is learnt, sent to an OTLP receiver by a thread of the SDK's.

Invariant: a receiver that is slow or absent costs spans, never a request. No text of a request and
no tenant is part of a span.
"""

import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from extproc import __version__
from extproc.response.reader import Refused, Unlearnable, Usage
from extproc.routing.route import Routed

# https://www.w3.org/TR/trace-context/, of which later versions keep these fields.
_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1
_EXPORT_TIMEOUT_S: Final = 2


class Tracing:
    """Begins the traces of a process; `share` of the requests, where Envoy has not decided."""

    def __init__(self, url: str, share: float, draw: Callable[[], float]) -> None:
        exporter = OTLPSpanExporter(f"{url}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
        resource = Resource({"service.name": "dualpool", "service.version": __version__})
        # What is traced is decided in `begin`.
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("dualpool", __version__)
        self._share, self._draw = share, draw

    def begin(self, metadata: Iterable[tuple[str, str | bytes]]) -> "RequestTrace | None":
        """Return the trace of a stream with this gRPC metadata; None if it is not sampled.

        Envoy's span decides, if there is one.
        """
        stated = next((value for name, value in metadata if name == "traceparent"), "")
        parent = read_parent(stated) if isinstance(stated, str) else None
        sampled = parent.trace_flags & _SAMPLED if parent else self._draw() < self._share
        return RequestTrace(self._tracer, parent) if sampled else None

    def close(self) -> None:
        """Send what is left, and stop."""
        self._provider.shutdown()


def read_parent(text: str) -> SpanContext | None:
    """Return the span that a traceparent names; None if it is not one."""
    found = _PARENT.fullmatch(text[:256])
    if found is None:
        return None
    trace_id, span_id = int(found[1], 16), int(found[2], 16)
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(found[3], 16)))


class RequestTrace:
    """The spans of one stream; a stream.traced.Trace."""

    def __init__(self, tracer: Tracer, parent: SpanContext | None) -> None:
        self._tracer, self._parent = tracer, parent
        self._decision: Span | None = None
        self._step: Span | None = None
        self._name = ""
        self._learning_ns = 0

    def step(self, name: str) -> None:
        """Begin a step of the decision; the step under way ends, unless it has this name."""
        if name == self._name:
            return
        context, now = set_span_in_context(self._deciding()), time.time_ns()
        if self._step:
            self._step.end(now)
        self._step, self._name = self._tracer.start_span(name, context, start_time=now), name

    def decided(self, routed: Routed) -> None:
        """End the decision."""
        decision, now = self._deciding(), time.time_ns()
        if self._step:
            self._step.end(now)
        budget = routed.budget
        decision.set_attributes(
            {
                "gen_ai.request.model": routed.asked.model,
                "dualpool.pool": routed.pool,
                "dualpool.reason": routed.reason.value,
                "dualpool.basis": budget.basis.value,
                "dualpool.prompt_tokens": budget.prompt_tokens,
                "dualpool.margin_tokens": budget.margin_tokens,
                "dualpool.output_tokens": budget.output_tokens,
            }
        )
        decision.end(now)

    def learning(self) -> None:
        """Begin to learn from an answer."""
        self._learning_ns = time.time_ns()

    def learnt(self, pool: str, outcome: Usage | Refused | Unlearnable) -> None:
        """End learning: a trace of its own with a link to the request's, which may have ended."""
        span = self._tracer.start_span(
            "learn",
            Context(),
            links=[Link(self._parent)] if self._parent else [],
            start_time=self._learning_ns,
        )
        match outcome:
            case Usage():
                span.set_attribute("gen_ai.usage.input_tokens", outcome.prompt_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", outcome.completion_tokens)
            case Refused():
                span.set_attribute("dualpool.outcome", "refused")
            case reason:
                span.set_attribute("dualpool.outcome", reason.value)
        span.set_attribute("dualpool.pool", pool)
        span.end()

    def _deciding(self) -> Span:
        if self._decision is None:
            context = Context()
            if self._parent:
                context = set_span_in_context(NonRecordingSpan(self._parent), context)
            self._decision = self._tracer.start_span("decide", context)
        return self._decision
