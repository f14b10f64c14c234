"""An OTLP receiver over HTTP that keeps the spans and the metrics of every sender."""

import gzip
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Receiver:
    """The spans that have arrived, each with the service that sent it, and the last sums."""

    def __init__(self):
        self.url = ""
        self.spans = []
        self.sums = {}

    def add(self, path, data):
        if path == "/v1/metrics":
            self._add_sums(data)
        else:
            self._add_spans(data)

    def _add_sums(self, data):
        for resource in ExportMetricsServiceRequest.FromString(data).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.sums[metric.name] = list(metric.sum.data_points)

    def _add_spans(self, data):
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope.spans]

    def of(self, service, name=""):
        """Return the spans of a service, or those of a name."""
        found = [span for sender, span in self.spans if sender == service]
        return [span for span in found if name in ("", span.name)]


@contextmanager
def receiving():
    """Run a receiver on a free port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            data = b"".join(self.pieces())
            if self.headers.get("content-encoding") == "gzip":
                data = gzip.decompress(data)
            receiver.add(self.path, data)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def pieces(self):
            if length := self.headers.get("content-length"):
                yield self.rfile.read(int(length))
                return
            while size := int(self.rfile.readline(), 16):  # Envoy sends chunks
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        yield receiver
        server.shutdown()


def attributes(span):
    """Return the attributes of a span, or of a metric's point."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }
