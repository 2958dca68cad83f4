"""One attempt to send a request over OTLP/gRPC.

Source: opentelemetry-proto, docs/specification.md, OTLP/gRPC (Failures, Throttling, Partial Success).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otelbridge import __version__
from otelbridge.errors import UsageError
from otelbridge.otlp.responses import LIMIT_BYTES, read_response
from otelbridge.otlp.retry import Rejected, Retry, TooLarge, Verdict
from otelbridge.otlp.settings import Endpoint
from otelbridge.records import Request, Signal

_METHODS: Mapping[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
# The servers' own words, for there is no code of its own (tonic even answers with the retryable OUT_OF_RANGE):
#   grpc: received message larger than max (6291530 vs. 4194304)                   Go; the C core likewise
#   gRPC message exceeds maximum size 4194304: 6291530                             Java
#   Error, decoded message length too large: found 6291530 bytes, the limit is: …  Rust
_TOO_LARGE = re.compile(r"larger than max|exceeds maximum size|length too large", re.IGNORECASE)
# Stream removed (CLIENT: Received message larger than max (4194315 vs. 4194304)): the answer was too large, not the request.
_ANSWER_TOO_LARGE = re.compile(r"CLIENT: Received message larger than max")
_OPTIONS = (
    ("grpc.primary_user_agent", f"otelbridge/{__version__}"),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", LIMIT_BYTES),
    # When to try again is decided in one place (retry.py); the channel only has to be ready to connect by then.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_LOOPBACK = re.compile(r"(localhost|127\.[\d.]+|\[::1\]):\d+")


class GrpcSender:
    """Sends to one gRPC destination; any thread may call `send`.

    Raises:
        UsageError: A TLS file cannot be read.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._metadata = endpoint.headers
        self._timeout_s = None if math.isinf(endpoint.timeout_s) else endpoint.timeout_s
        self._compression = grpc.Compression.Gzip if endpoint.gzip else grpc.Compression.NoCompression
        self._channel = _channel(endpoint)
        self._calls: dict[Signal, Callable[..., bytes]] = {
            signal: self._channel.unary_unary(method, request_serializer=None, response_deserializer=None)
            for signal, method in _METHODS.items()
        }

    def send(self, request: Request) -> Verdict:
        """Send once and say what came of it."""
        call = self._calls[request.signal]
        try:
            answer = call(request.body, timeout=self._timeout_s, metadata=self._metadata, compression=self._compression)
        except grpc.RpcError as error:
            return _verdict(error)
        return read_response(request.signal, answer)

    def close(self) -> None:
        """Give the connection back; calls that still run end with CANCELLED."""
        self._channel.close()


def _channel(endpoint: Endpoint) -> grpc.Channel:
    options = [*_OPTIONS]
    if _LOOPBACK.fullmatch(endpoint.url):
        options.append(("grpc.enable_http_proxy", 0))
    if endpoint.insecure:
        return grpc.insecure_channel(endpoint.url, options=options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(endpoint.ca), private_key=_read(endpoint.key), certificate_chain=_read(endpoint.cert)
    )
    return grpc.secure_channel(endpoint.url, credentials, options=options)


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}), expected a PEM file; nothing was sent") from error


def _verdict(error: grpc.RpcError) -> Verdict:
    """What a failed call means. The error of a blocking call is the call itself, although its type does not say so."""
    call = cast("grpc.Call", error)
    code, words = call.code(), " ".join((call.details() or "").split())
    reason = f"{code.name}: {words}" if words else code.name
    if _ANSWER_TOO_LARGE.search(words):
        return Rejected(f"{reason} (it may have been taken, but the answer cannot be read)")
    if _TOO_LARGE.search(words):
        return TooLarge(reason)
    after_s = _retry_after_s(call)
    if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and after_s is not None):
        return Retry(reason, after_s)
    return Rejected(reason)


def _retry_after_s(call: grpc.Call) -> float | None:
    """The delay of the RetryInfo in the status details, if there is one."""
    for key, value in call.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            details = Status.FromString(value if isinstance(value, bytes) else value.encode()).details
            for detail in details:
                info = RetryInfo()
                if detail.Unpack(info):
                    delay_s: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                    return max(0.0, delay_s)
        except DecodeError:
            return None
    return None
