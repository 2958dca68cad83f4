"""A strict OTLP receiver inside the test's own process: real sockets on loopback, gRPC and HTTP, scripted misbehaviour.

It reads requests with the generated classes of opentelemetry-proto and nothing of otelbridge.

    with Receiver() as receiver:
        receiver.script("traces", [UNAVAILABLE, Answer(rejected=2, message="too old")])
        ...send to receiver.http_url or receiver.grpc_url...
    assert len(receiver.spans()) == 3
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelbridge.records import Signal

PROTOBUF = "application/x-protobuf"
PATHS: Mapping[str, Signal] = {"/v1/traces": "traces", "/v1/metrics": "metrics"}
METHODS: Mapping[str, Signal] = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver does with one request.

    Attributes:
        status: HTTP status. With one of the 2xx the request is kept.
        code: gRPC status. With OK the request is kept.
        message: Goes into the partial success, or into the Status of a failure.
        rejected: Items said to be rejected (partial success). The request is kept whole all the same.
        retry_after: The HTTP header.
        retry_info_s: The RetryInfo in gRPC's status details.
        body: In place of the HTTP body.
        headers: More HTTP headers.
        action: `reset`: cut the connection before the request is kept. `lose`: keep the request, then cut the connection
            without an answer. `half`: keep nothing, send the half of an HTTP answer (over gRPC: nothing), then cut.
            `hang`: keep nothing and never answer. `drip`: keep nothing and send an HTTP answer byte by byte, without an end
            (over gRPC: never answer).
    """

    status: int = 200
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    rejected: int = 0
    retry_after: str | None = None
    retry_info_s: float | None = None
    body: tuple[str, bytes] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    action: Literal["answer", "reset", "lose", "half", "hang", "drip"] = "answer"


ACCEPTED = Answer()
UNAVAILABLE = Answer(status=503, code=grpc.StatusCode.UNAVAILABLE, message="the backend restarts")
TOO_LARGE = Answer(
    status=413, code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="grpc: received message larger than max (9 vs. 4)"
)
BAD = Answer(status=400, code=grpc.StatusCode.INVALID_ARGUMENT, message="no such tenant")


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of the server; with `client_ca` it asks clients for a certificate of that authority."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class Point(NamedTuple):
    """A data point with the metric that it belongs to."""

    metric: Metric
    point: Any


@dataclass
class Receiver:
    """Listens on loopback as long as the context lasts.

    Attributes:
        tls: How it proves who it is; None for plain connections.
        limit_bytes: Requests over it (uncompressed) are refused as too large.
        takes_empty: A request without anything in it is no fault: it is answered, and not kept.
        requests: The kept requests in the order of their arrival, uncompressed.
        headers: The headers or metadata of every request that came whole, names in lower case.
        faults: What was wrong with requests; the context ends with an AssertionError if there is any.
        attempts: Requests that came, whether they were kept or not.
    """

    tls: ServerTls | None = None
    limit_bytes: int | None = None
    takes_empty: bool = False
    requests: list[tuple[Signal, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    attempts: list[Signal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._scripts: dict[Signal, deque[Answer]] = {"traces": deque(), "metrics": deque()}
        self._lock = threading.Lock()
        self.closing = threading.Event()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="receiver")
        self._http = _HttpServer(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self._grpc, port = self._serve_grpc()
        self._relay = _Relay(port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closing.set()
        self._relay.close()
        self._grpc.stop(0).wait()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._pool.shutdown()
        if kind is None:
            assert self.faults == []

    @property
    def http_url(self) -> str:
        """The base URL for OTLP/HTTP."""
        return f"http{'s' if self.tls else ''}://localhost:{self._http.server_port}"

    @property
    def grpc_url(self) -> str:
        """The address for OTLP/gRPC."""
        return f"grpc{'s' if self.tls else ''}://localhost:{self._relay.port}"

    def script(self, signal: Signal, answers: Iterable[Answer]) -> None:
        """Set the answers to the next requests of a signal; all later ones are accepted."""
        with self._lock:
            self._scripts[signal] = deque(answers)

    def spans(self) -> list[Span]:
        """All spans of the kept requests."""
        messages = [ExportTraceServiceRequest.FromString(body) for signal, body in self.requests if signal == "traces"]
        return [s for m in messages for r in m.resource_spans for scope in r.scope_spans for s in scope.spans]

    def points(self) -> list[Point]:
        """All data points of the kept requests."""
        messages = [ExportMetricsServiceRequest.FromString(body) for signal, body in self.requests if signal == "metrics"]
        metrics = [x for m in messages for r in m.resource_metrics for scope in r.scope_metrics for x in scope.metrics]
        return [Point(metric, point) for metric in metrics for point in data_points(metric)]

    def take(self, signal: Signal, body: bytes, headers: dict[str, str]) -> Answer:
        """Judge a request and say how to answer it."""
        with self._lock:
            self.attempts.append(signal)
            self.headers.append(headers)
            is_empty = self.takes_empty and not body
            faults = [] if is_empty else list(request_faults(signal, body))
            self.faults += faults
            if faults:
                return Answer(status=400, code=grpc.StatusCode.INVALID_ARGUMENT, message="; ".join(faults))
            if self.limit_bytes is not None and len(body) > self.limit_bytes:
                return TOO_LARGE
            answer = self._scripts[signal].popleft() if self._scripts[signal] else ACCEPTED
            is_success = 200 <= answer.status < 300 and answer.code is grpc.StatusCode.OK
            if answer.action == "lose" or (answer.action == "answer" and is_success and not is_empty):
                self.requests.append((signal, body))
            return answer

    def fault(self, text: str) -> None:
        """Note what was wrong with a request that never came as far as `take`."""
        with self._lock:
            self.faults.append(text)

    @property
    def grpc_bytes(self) -> int:
        """Bytes that came over all gRPC connections so far."""
        return self._relay.received

    def cut_grpc(self) -> None:
        """Reset every gRPC connection."""
        self._relay.cut()

    def restart_grpc(self) -> None:
        """End the gRPC server in order (GOAWAY, what is under way is answered), and begin another behind the same address.

        It reads the files of its certificate again.
        """
        self._grpc.stop(5).wait()
        self._grpc, port = self._serve_grpc()
        self._relay.turn_to(port)

    def renew_http(self) -> None:
        """Read the files of the HTTP server's certificate again."""
        assert self.tls is not None
        assert self._http.context is not None
        self._http.context.load_cert_chain(self.tls.cert, self.tls.key)

    def _serve_grpc(self) -> tuple[grpc.Server, int]:
        server = grpc.server(self._pool, handlers=[_Handler(self)], options=[("grpc.max_receive_message_length", -1)])
        address = "127.0.0.1:0"
        port = server.add_secure_port(address, self._credentials()) if self.tls else server.add_insecure_port(address)
        server.start()
        return server, port

    def _credentials(self) -> grpc.ServerCredentials:
        assert self.tls is not None
        client_ca = self.tls.client_ca.read_bytes() if self.tls.client_ca else None
        pair = (self.tls.key.read_bytes(), self.tls.cert.read_bytes())
        return grpc.ssl_server_credentials([pair], root_certificates=client_ca, require_client_auth=client_ca is not None)


# --- what a good request is -------------------------------------------------------------------------


def data_points(metric: Metric) -> Sequence[Any]:
    """The points of a metric of whichever kind."""
    kind = metric.WhichOneof("data")
    return () if kind is None else getattr(metric, kind).data_points


def request_faults(signal: Signal, body: bytes) -> Iterator[str]:
    """Everything in a request that OTLP forbids or that backends refuse."""
    try:
        if signal == "traces":
            yield from _trace_faults(ExportTraceServiceRequest.FromString(body))
        else:
            yield from _metric_faults(ExportMetricsServiceRequest.FromString(body))
    except DecodeError as error:
        yield f"the body is no request for {signal}: {error}"


def _trace_faults(request: ExportTraceServiceRequest) -> Iterator[str]:
    if not request.resource_spans:
        yield "a request without resource spans"
    for resource in request.resource_spans:
        yield from _attribute_faults(resource.resource.attributes)
        if not resource.scope_spans:
            yield "resource spans without scope spans"
        for scope in resource.scope_spans:
            if not scope.spans:
                yield "scope spans without spans"
            for span in scope.spans:
                yield from _span_faults(span)


def _span_faults(span: Span) -> Iterator[str]:
    if len(span.trace_id) != 16 or not any(span.trace_id):
        yield f"{span.name}: trace id {span.trace_id.hex()!r}"
    if len(span.span_id) != 8 or not any(span.span_id):
        yield f"{span.name}: span id {span.span_id.hex()!r}"
    if span.parent_span_id and (len(span.parent_span_id) != 8 or not any(span.parent_span_id)):
        yield f"{span.name}: parent span id {span.parent_span_id.hex()!r}"
    if not span.name:
        yield "a span without a name"
    if not 0 < span.start_time_unix_nano <= span.end_time_unix_nano:
        yield f"{span.name}: from {span.start_time_unix_nano} to {span.end_time_unix_nano}"
    for link in span.links:
        if len(link.trace_id) != 16 or len(link.span_id) != 8:
            yield f"{span.name}: a link to {link.trace_id.hex()!r} {link.span_id.hex()!r}"
    yield from _attribute_faults(span.attributes)


def _metric_faults(request: ExportMetricsServiceRequest) -> Iterator[str]:
    if not request.resource_metrics:
        yield "a request without resource metrics"
    for resource in request.resource_metrics:
        yield from _attribute_faults(resource.resource.attributes)
        if not resource.scope_metrics:
            yield "resource metrics without scope metrics"
        for scope in resource.scope_metrics:
            if not scope.metrics:
                yield "scope metrics without metrics"
            for metric in scope.metrics:
                yield from _points_faults(metric)


def _points_faults(metric: Metric) -> Iterator[str]:
    if not metric.name:
        yield "a metric without a name"
    if not data_points(metric):
        yield f"{metric.name}: no data points"
    for point in data_points(metric):
        if not point.time_unix_nano or point.start_time_unix_nano > point.time_unix_nano:
            yield f"{metric.name}: from {point.start_time_unix_nano} to {point.time_unix_nano}"
        yield from _attribute_faults(point.attributes)


def _attribute_faults(attributes: Iterable[KeyValue]) -> Iterator[str]:
    keys = [attribute.key for attribute in attributes]
    if "" in keys:
        yield "an attribute without a key"
    if len(set(keys)) != len(keys):
        yield f"attribute keys are not unique: {keys}"


def response_body(signal: Signal, answer: Answer) -> bytes:
    """The protobuf of a success, partial or whole."""
    if signal == "traces":
        traces = ExportTraceServiceResponse()
        if answer.rejected or answer.message:
            traces.partial_success.rejected_spans = answer.rejected
            traces.partial_success.error_message = answer.message
        return traces.SerializeToString()
    metrics = ExportMetricsServiceResponse()
    if answer.rejected or answer.message:
        metrics.partial_success.rejected_data_points = answer.rejected
        metrics.partial_success.error_message = answer.message
    return metrics.SerializeToString()


# --- HTTP -------------------------------------------------------------------------------------------


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.context: ssl.SSLContext | None = None
        if receiver.tls is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(receiver.tls.cert, receiver.tls.key)
            if receiver.tls.client_ca is not None:
                self.context.load_verify_locations(receiver.tls.client_ca)
                self.context.verify_mode = ssl.CERT_REQUIRED
        super().__init__(("127.0.0.1", 0), _HttpHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(5)
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave or cannot prove who they are belong to the tests."""


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the method overridden
        """Quiet."""

    def do_POST(self) -> None:
        receiver, signal = self.server.receiver, PATHS.get(self.path)
        length = int(self.headers["Content-Length"] or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # the sender died
            self.close_connection = True
            return
        encoding = self.headers["Content-Encoding"]
        if signal is None:
            receiver.fault(f"no such path: {self.path}")
            self.reply(404, "text/plain", b"no such path")
        elif self.headers["Content-Type"] != PROTOBUF or encoding not in (None, "gzip"):
            receiver.fault(f"content type {self.headers['Content-Type']!r}, encoding {encoding!r}")
            self.reply(415, "text/plain", b"protobuf or gzip of protobuf only")
        else:
            raw = gzip.decompress(body) if encoding == "gzip" else body
            self.answer(signal, receiver.take(signal, raw, {k.lower(): v for k, v in self.headers.items()}))

    def answer(self, signal: Signal, answer: Answer) -> None:
        if answer.action == "hang":
            self.server.receiver.closing.wait()
        if answer.action == "drip":
            self.drip()
        if answer.action == "half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 40\r\n\r\n\x0a")
            self.wfile.flush()
            self.close_connection = True
        elif answer.action != "answer":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.close()
            self.close_connection = True
        else:
            is_success = 200 <= answer.status < 300
            content = response_body(signal, answer) if is_success else Status(message=answer.message).SerializeToString()
            kind, content = answer.body or (PROTOBUF, content)
            more = [("Retry-After", answer.retry_after)] if answer.retry_after is not None else []
            self.reply(answer.status, kind, content, [*answer.headers, *more])

    def drip(self) -> None:
        """Send an answer so slowly that no read of it ever times out."""
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 100000\r\n\r\n")
            while not self.server.receiver.closing.wait(0.05):
                self.wfile.write(b"\0")

    def reply(self, status: int, content_type: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.send_response(status)
        for name, value in [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


# --- gRPC -------------------------------------------------------------------------------------------


class _Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        signal = METHODS.get(handler_call_details.method)
        if signal is None:
            self._receiver.fault(f"no such method: {handler_call_details.method}")
            return None
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._take(signal, body, context))

    def _take(self, signal: Signal, body: bytes, context: grpc.ServicerContext) -> bytes:
        headers = {key: value if isinstance(value, str) else value.hex() for key, value in context.invocation_metadata()}
        answer = self._receiver.take(signal, body, headers)
        if answer.action in ("hang", "drip"):
            self._receiver.closing.wait()
        if answer.action != "answer":
            self._receiver.cut_grpc()
            context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        if answer.code is not grpc.StatusCode.OK:
            if answer.retry_info_s is not None:
                context.set_trailing_metadata((("grpc-status-details-bin", _details(answer)),))
            context.abort(answer.code, answer.message)
        return response_body(signal, answer)


def _details(answer: Answer) -> bytes:
    info, packed = RetryInfo(), AnyMessage()
    info.retry_delay.FromNanoseconds(int((answer.retry_info_s or 0) * 1e9))
    packed.Pack(info)
    details: bytes = Status(code=answer.code.value[0], message=answer.message, details=[packed]).SerializeToString()
    return details


class _Relay:
    """Passes TCP on to a port and can reset all its connections: a gRPC server cannot be told to."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._lock = threading.Lock()
        self.received = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def turn_to(self, port: int) -> None:
        """Pass new connections on to another port."""
        self._target = ("127.0.0.1", port)

    def cut(self) -> None:
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    client.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
                client.close()
            self._clients.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:  # between two servers
                client.close()
                continue
            with self._lock:
                self._clients.append(client)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, origin: socket.socket, goal: socket.socket) -> None:
        try:
            while data := origin.recv(65536):
                if goal.getsockname()[1] != self.port:
                    self.received += len(data)
                goal.sendall(data)
        except OSError:
            pass
        with self._lock:
            for end in (origin, goal):
                _end(end)
            self._clients = [client for client in self._clients if client not in (origin, goal)]


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
    end.close()
