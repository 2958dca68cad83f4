"""An OTLP receiver that only counts: `counting_receiver.py` prints its two ports and serves until its standard input ends.

`GET /` tells on the HTTP port how many spans and data points have come since the last time that it was asked.
"""

from __future__ import annotations

import gzip
import http.server
import json
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_lock = threading.Lock()
_counted: Counter[str] = Counter()


def take(signal: str, body: bytes) -> bytes:
    """Count what is in a request; the body of the answer."""
    if signal.endswith(("traces", "TraceService/Export")):
        traces = ExportTraceServiceRequest.FromString(body)
        what, numbers = "spans", [len(scope.spans) for resource in traces.resource_spans for scope in resource.scope_spans]
    else:
        metrics = ExportMetricsServiceRequest.FromString(body)
        found = [m for resource in metrics.resource_metrics for scope in resource.scope_metrics for m in scope.metrics]
        what, numbers = "points", [len(getattr(metric, str(metric.WhichOneof("data"))).data_points) for metric in found]
    with _lock:
        _counted[what] += sum(numbers)
    return b""


class _Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self._answer(take(self.path, body), "application/x-protobuf")

    def do_GET(self) -> None:
        with _lock:
            told = json.dumps({"spans": _counted["spans"], "points": _counted["points"]})
            _counted.clear()
        self._answer(told.encode(), "application/json")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is said of single requests."""


class _Grpc(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # no generic class when it runs
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:  # type: ignore[type-arg]
        method = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda body, _context: take(method, body))


def main() -> int:
    """Serve until standard input ends."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Http)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Grpc()], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"grpc": port, "http": web.server_port}), flush=True)
    sys.stdin.read()
    server.stop(0).wait()
    web.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
