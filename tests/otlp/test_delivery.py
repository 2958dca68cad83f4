"""Delivery against a strict receiver on real sockets: whatever it does, every item is accounted for exactly once."""

from __future__ import annotations

import logging
import os
import signal as signals
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge import __version__
from otelbridge.errors import SpoolError, UsageError
from otelbridge.otlp.delivery import QUEUE_REQUESTS, Destination, OtlpSink, otlp_sink, sender_for
from otelbridge.otlp.http_sender import retry_after_s
from otelbridge.otlp.outbox import Outbox
from otelbridge.otlp.responses import LIMIT_BYTES
from otelbridge.otlp.retry import Accepted, Backoff, Rejected, Retry, TooLarge, Verdict
from otelbridge.otlp.settings import endpoints
from otelbridge.records import FinishedSpan, Metric, MetricPoint, Outcome, Request, Resource, Scope, Signal
from tests.receiver import ACCEPTED, BAD, TOO_LARGE, UNAVAILABLE, Answer, Receiver

E = "OTEL_EXPORTER_OTLP_"
QUICK = Backoff(initial_s=0.005, longest_s=0.02)
NOW_NS = 1_700_000_000_000_000_000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def to(receiver: Receiver, protocol: str) -> str:
    """The receiver's address for each protocol in turn."""
    return receiver.grpc_url if protocol == "grpc" else receiver.http_url


def trace_request(items: int, first: int = 1) -> Request:
    """A request of spans whose ids are the numbers from `first` on."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for number in range(first, first + items):
        spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name="ram",
            start_time_unix_nano=NOW_NS,
            end_time_unix_nano=NOW_NS + number,
        )
    return Request("traces", message.SerializeToString(), items)


def metric_request(number: int) -> Request:
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="pages")
    metric.sum.data_points.add(time_unix_nano=NOW_NS + number, as_int=number)
    return Request("metrics", message.SerializeToString(), 1)


def trace_requests(number: int, items: int = 5) -> list[Request]:
    return [trace_request(items, 1 + items * i) for i in range(number)]


def deliver(
    to: str,
    requests: Sequence[Request],
    *,
    env: dict[str, str] | None = None,
    give_up_s: float = 20.0,
    spool: Outbox | None = None,
) -> Outcome:
    """Hand requests of one signal to a destination and wait for the end."""
    signal = requests[0].signal
    endpoint = endpoints(to, env or {})[signal]
    destination = Destination(signal, endpoint, sender_for(endpoint), give_up_s=give_up_s, spool=spool, backoff=QUICK)
    for request in requests:
        destination.put(request)
    return destination.close()


def send_once(to: str, *, env: dict[str, str] | None = None, signal: Signal = "traces") -> Verdict:
    sender = sender_for(endpoints(to, env or {})[signal])
    try:
        return sender.send(trace_request(3) if signal == "traces" else metric_request(1))
    finally:
        sender.close()


def span_numbers(receiver: Receiver) -> list[int]:
    return [int.from_bytes(span.span_id, "big") for span in receiver.spans()]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# --- one attempt ------------------------------------------------------------------------------------


def test_bytes_go_out_as_they_are(receiver: Receiver, to: str) -> None:
    assert send_once(to) == Accepted()
    assert send_once(to, signal="metrics") == Accepted()
    assert receiver.requests == [("traces", trace_request(3).body), ("metrics", metric_request(1).body)]


def test_headers_user_agent_and_gzip(receiver: Receiver, to: str, protocol: str) -> None:
    env = {E + "HEADERS": "Api-Key=a%20b,x-scope=y", E + "COMPRESSION": "gzip", E + "METRICS_COMPRESSION": "none"}
    assert send_once(to, env=env) == Accepted()
    assert send_once(to, env=env, signal="metrics") == Accepted()
    zipped, plain = receiver.headers
    assert (zipped["api-key"], zipped["x-scope"]) == ("a b", "y")
    assert zipped["user-agent"].startswith(f"otelbridge/{__version__}")
    if protocol == "http":
        assert zipped["content-encoding"] == "gzip"
        assert "content-encoding" not in plain
    assert receiver.requests[0] == ("traces", trace_request(3).body)


def test_grpc_gzip_makes_the_message_smaller_on_the_wire() -> None:
    request = trace_request(2000)
    sizes = []
    for compression in ("none", "gzip"):
        with Receiver() as receiver:
            assert deliver(receiver.grpc_url, [request], env={E + "COMPRESSION": compression}).delivered == 2000
            sizes.append(receiver.grpc_bytes)
    assert sizes[0] > len(request.body)
    assert sizes[1] < len(request.body) / 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_http_statuses_that_are_retried(receiver: Receiver, status: int) -> None:
    receiver.script("traces", [Answer(status=status, message="slow down")])
    verdict = send_once(receiver.http_url)
    assert isinstance(verdict, Retry)
    assert f"HTTP {status}" in verdict.reason
    assert "slow down" in verdict.reason


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 415, 422, 500, 501, 505, 507])
def test_http_statuses_that_are_not_retried(receiver: Receiver, status: int) -> None:
    receiver.script("traces", [Answer(status=status, message="no such tenant")])
    verdict = send_once(receiver.http_url)
    assert isinstance(verdict, Rejected)
    assert f"HTTP {status}" in verdict.reason
    assert "no such tenant" in verdict.reason


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused_and_not_followed(receiver: Receiver, status: int) -> None:
    place = f"{receiver.http_url}/v1/traces"
    receiver.script("traces", [Answer(status=status, headers=(("Location", f"{place}?token=secret"),))])
    verdict = send_once(receiver.http_url)
    assert isinstance(verdict, Rejected)
    assert place in verdict.reason
    assert "secret" not in verdict.reason
    assert len(receiver.attempts) == 1


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED, grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS,
    ],
)  # fmt: skip
def test_grpc_codes_that_are_retried(receiver: Receiver, code: grpc.StatusCode) -> None:
    receiver.script("traces", [Answer(code=code, message="slow down")])
    assert send_once(receiver.grpc_url) == Retry(f"{code.name}: slow down")


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)  # fmt: skip
def test_grpc_codes_that_are_not_retried(receiver: Receiver, code: grpc.StatusCode) -> None:
    receiver.script("traces", [Answer(code=code, message="no such tenant")])
    assert send_once(receiver.grpc_url) == Rejected(f"{code.name}: no such tenant")


def test_grpc_retry_info(receiver: Receiver) -> None:
    """It delays the retry, and alone makes RESOURCE_EXHAUSTED one that is retried; INTERNAL stays what it is."""
    exhausted, internal = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL
    receiver.script(
        "traces",
        [
            Answer(code=exhausted, message="quota", retry_info_s=1.5),
            Answer(code=grpc.StatusCode.UNAVAILABLE, message="busy", retry_info_s=0.0),
            Answer(code=internal, message="bug", retry_info_s=1.0),
        ],
    )
    assert send_once(receiver.grpc_url) == Retry("RESOURCE_EXHAUSTED: quota", 1.5)
    assert send_once(receiver.grpc_url) == Retry("UNAVAILABLE: busy", 0.0)
    assert send_once(receiver.grpc_url) == Rejected("INTERNAL: bug")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (6291530 vs. 4194304)"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 4194304: 6291530"),
        (
            grpc.StatusCode.OUT_OF_RANGE,
            "Error, decoded message length too large: found 6291530 bytes, the limit is: 4194304 bytes",
        ),
    ],
)
def test_grpc_servers_that_find_a_request_too_large(receiver: Receiver, code: grpc.StatusCode, words: str) -> None:
    receiver.script("traces", [Answer(code=code, message=words)])
    assert isinstance(send_once(receiver.grpc_url), TooLarge)


def test_http_413_is_too_large(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(status=413)])
    assert isinstance(send_once(receiver.http_url), TooLarge)


@pytest.mark.parametrize(
    ("header", "expected_s"),
    [
        ("3", 3.0), (" 120 ", 120.0), ("0", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0), ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("-1", None), ("soon", None), ("", None), (None, None), ("1.5", None), ("²", None),
        ("Tue, 99 Nov 99999 99:99:99 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_holds_seconds_or_a_date(header: str | None, expected_s: float | None) -> None:
    assert retry_after_s(header, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)) == expected_s


def test_http_retry_after_is_read(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(status=429, retry_after="7"), Answer(status=503, retry_after="junk")])
    first, second = send_once(receiver.http_url), send_once(receiver.http_url)
    assert isinstance(first, Retry)
    assert isinstance(second, Retry)
    assert (first.after_s, second.after_s) == (7.0, None)


def test_partial_success_is_read(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [Answer(rejected=2, message="too old"), Answer(message="deprecated attribute")])
    receiver.script("metrics", [Answer(rejected=1, message="out of order")])
    assert send_once(to) == Accepted(2, "too old")
    assert send_once(to) == Accepted(0, "deprecated attribute")
    assert send_once(to, signal="metrics") == Accepted(1, "out of order")


def test_http_partial_success_in_json_is_read(receiver: Receiver) -> None:
    body = b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}, "more": 1}'
    receiver.script(
        "traces", [Answer(body=("application/json; charset=utf-8", body)), Answer(body=("application/json", b"{}"))]
    )
    assert send_once(receiver.http_url) == Accepted(2, "too old")
    assert send_once(receiver.http_url) == Accepted()


@pytest.mark.parametrize(("kind", "body"), [("text/html", b"<h1>It works!</h1>"), ("application/x-protobuf", b"\xff\xff")])
def test_an_answer_that_is_no_otlp_response_is_a_warning(receiver: Receiver, kind: str, body: bytes) -> None:
    receiver.script("traces", [Answer(body=(kind, body))])
    verdict = send_once(receiver.http_url)
    assert isinstance(verdict, Accepted)
    assert verdict.rejected_items == 0
    assert "no OTLP response" in verdict.message


def test_http_success_without_content(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(status=204, body=("text/plain", b"")), Answer(status=202, body=("text/plain", b""))])
    assert send_once(receiver.http_url) == Accepted()
    assert send_once(receiver.http_url) == Accepted()


def test_http_failure_in_plain_words(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(status=400, body=("text/plain", b"bad\r\n\x1b[31m thing " + b"x" * 5000))])
    verdict = send_once(receiver.http_url)
    assert isinstance(verdict, Rejected)
    assert "bad [31m thing xxx" in verdict.reason
    assert len(verdict.reason) < 400


def test_an_endless_answer_is_not_read_to_its_end(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(body=("application/x-protobuf", b"\0" * (LIMIT_BYTES + 1)))])
    verdict = send_once(receiver.http_url)
    assert isinstance(verdict, Rejected)
    assert "may have been taken" in verdict.reason


def test_grpc_answer_over_the_limit_does_not_split_the_request(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(message="x" * (LIMIT_BYTES + 1))])
    verdict = send_once(receiver.grpc_url)
    assert isinstance(verdict, Rejected)
    assert "may have been taken" in verdict.reason


@pytest.mark.parametrize("action", ["reset", "lose", "half"])
def test_a_connection_that_breaks_is_retried(receiver: Receiver, to: str, action: str) -> None:
    receiver.script("traces", [Answer(action=action)])  # type: ignore[arg-type]
    assert isinstance(send_once(to), Retry)


def test_timeout_is_in_milliseconds(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [Answer(action="hang")])
    begin = time.monotonic()
    assert isinstance(send_once(to, env={E + "TIMEOUT": "300"}), Retry)
    assert 0.25 < time.monotonic() - begin < 3


def test_a_trickling_answer_ends_with_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def trickle() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.02):
                    try:
                        peer.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        verdict = send_once(f"http://127.0.0.1:{server.getsockname()[1]}", env={E + "TIMEOUT": "300"})
        stop.set()
        thread.join()
    assert isinstance(verdict, Retry)
    assert "time-out" in verdict.reason


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_listens(scheme: str) -> None:
    verdict = send_once(f"{scheme}://127.0.0.1:{free_port()}")
    assert isinstance(verdict, Retry)
    assert "refused" in verdict.reason


def test_proxies_of_the_environment_are_not_for_loopback(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert send_once(to) == Accepted()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - a name of this host that is not loopback
def test_netrc_does_not_replace_the_authorization(
    receiver: Receiver, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("no_proxy", "*")
    to = receiver.http_url.replace("localhost", host)
    assert send_once(to, env={E + "HEADERS": "authorization=Bearer%20x"}) == Accepted()
    assert receiver.headers[0]["authorization"] == "Bearer x"


# --- whole deliveries -------------------------------------------------------------------------------

TROUBLES: dict[str, list[Answer]] = {
    "throttled": [Answer(status=429, code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after="0", retry_info_s=0.02)] * 6,
    "unavailable": [UNAVAILABLE, ACCEPTED] * 8,
    "reset": [Answer(action="reset"), ACCEPTED, Answer(action="reset")] * 2,
    "half an answer": [Answer(action="half"), ACCEPTED] * 3,
    "everything": [UNAVAILABLE, Answer(action="reset"), Answer(action="half"), Answer(status=504, code=grpc.StatusCode.ABORTED)]
    * 3,
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_nothing_is_lost_in_trouble(receiver: Receiver, to: str, trouble: str, compression: str) -> None:
    receiver.script("traces", TROUBLES[trouble])
    outcome = deliver(to, trace_requests(30), env={E + "COMPRESSION": compression})
    assert outcome == Outcome(delivered=150)
    assert set(span_numbers(receiver)) == set(range(1, 151))
    if trouble in ("throttled", "unavailable"):
        assert len(receiver.spans()) == 150


def test_what_is_sent_again_is_the_same_bytes(receiver: Receiver, to: str) -> None:
    """The acknowledgement is lost, so the receiver sees the request twice, and a backend can tell that it is the same."""
    receiver.script("traces", [Answer(action="lose")])
    request = trace_request(3)
    assert deliver(to, [request]) == Outcome(delivered=3)
    assert receiver.requests == [("traces", request.body)] * 2


def test_a_half_dead_receiver_is_left_by_timeout_and_retried(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [Answer(action="hang")] * 5)
    assert deliver(to, trace_requests(10), env={E + "TIMEOUT": "250"}) == Outcome(delivered=50)
    assert sorted(span_numbers(receiver)) == list(range(1, 51))


def test_partial_success_is_counted_and_never_retried(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [Answer(rejected=2, message="too old")] * 3)
    outcome = deliver(to, trace_requests(5))
    assert (outcome.delivered, outcome.rejected, outcome.spooled) == (19, 6, 0)
    assert len(outcome.reasons) == 1
    assert "too old (6 spans)" in outcome.reasons[0]
    assert len(receiver.attempts) == 5


def test_a_destination_that_rejects_more_than_it_got_does_not_break_the_account(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [Answer(rejected=99, message="?")])
    outcome = deliver(to, trace_requests(2))
    assert (outcome.delivered, outcome.rejected) == (5, 5)


def test_a_warning_with_a_success_is_told_once(receiver: Receiver, to: str, caplog: pytest.LogCaptureFixture) -> None:
    receiver.script("traces", [Answer(message="use tenant b")] * 4)
    assert deliver(to, trace_requests(4)) == Outcome(delivered=20)
    assert [r.levelno for r in caplog.records if "use tenant b" in r.message] == [logging.WARNING]


def test_refusals_are_counted_with_their_reasons(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [BAD, ACCEPTED, BAD])
    outcome = deliver(to, trace_requests(4))
    assert (outcome.delivered, outcome.rejected) == (10, 10)
    assert len(outcome.reasons) == 1
    assert "no such tenant (10 spans)" in outcome.reasons[0]
    assert len(receiver.attempts) == 4


def test_refusals_are_kept_in_the_spool(receiver: Receiver, to: str, tmp_path: Path) -> None:
    receiver.script("traces", [BAD])
    request = trace_request(5)
    with Outbox(tmp_path) as spool:
        outcome = deliver(to, [request], spool=spool)
        kept = list(spool.rejected())
        assert list(spool.pending()) == []
    assert (outcome.rejected, outcome.spooled) == (5, 0)
    assert [(k.request, "no such tenant" in reason) for k, reason in kept] == [(request, True)]


def test_different_reasons_stay_bounded(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [Answer(status=400, code=grpc.StatusCode.INTERNAL, message=f"request id {i}") for i in range(60)])
    outcome = deliver(to, trace_requests(60, items=1))
    assert outcome.rejected == 60
    assert len(outcome.reasons) <= 21
    assert sum(int(reason.rpartition("(")[2].split()[0]) for reason in outcome.reasons) == 60


def test_a_request_that_is_too_large_goes_in_parts(to: str, receiver: Receiver) -> None:
    receiver.limit_bytes = len(trace_request(4).body)
    assert deliver(to, [trace_request(30), trace_request(3, first=31)]) == Outcome(delivered=33)
    assert sorted(span_numbers(receiver)) == list(range(1, 34))


def test_parts_of_metrics_stay_in_order(receiver: Receiver, to: str) -> None:
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="pages")
    for number in range(1, 41):
        metric.gauge.data_points.add(time_unix_nano=NOW_NS + number, as_int=number)
    receiver.limit_bytes = 120
    outcome = deliver(to, [Request("metrics", message.SerializeToString(), 40)])
    assert outcome == Outcome(delivered=40)
    assert [p.point.as_int for p in receiver.points()] == list(range(1, 41))


def test_a_single_item_that_is_too_large_is_rejected(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [TOO_LARGE])
    outcome = deliver(to, [trace_request(1)])
    assert (outcome.delivered, outcome.rejected) == (0, 1)
    assert "a single item is too large" in outcome.reasons[0]


def test_metrics_arrive_in_their_order_in_spite_of_retries(receiver: Receiver, to: str) -> None:
    receiver.script("metrics", [ACCEPTED, UNAVAILABLE, UNAVAILABLE, ACCEPTED, ACCEPTED, UNAVAILABLE] * 3)
    assert deliver(to, [metric_request(i) for i in range(1, 31)]) == Outcome(delivered=30)
    assert [p.point.as_int for p in receiver.points()] == list(range(1, 31))


# --- giving up --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_dead_destination_is_given_up_and_says_what_to_do(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    begin = time.monotonic()
    outcome = deliver(f"{scheme}://127.0.0.1:{free_port()}", trace_requests(200), give_up_s=0.5)
    assert 0.5 <= time.monotonic() - begin < 5
    assert (outcome.delivered, outcome.spooled, outcome.rejected) == (0, 0, 1000)
    assert len(outcome.reasons) == 1
    assert "took nothing for 0.5 s" in outcome.reasons[0]
    assert "(1000 spans)" in outcome.reasons[0]
    assert any("--spool" in record.message for record in caplog.records)


def test_what_a_dead_destination_did_not_take_is_spooled(tmp_path: Path) -> None:
    requests = trace_requests(20)
    address = f"http://127.0.0.1:{free_port()}"
    with Outbox(tmp_path) as spool:
        outcome = deliver(address, requests, give_up_s=0.3, spool=spool)
        kept = list(spool.pending())
    assert outcome == Outcome(spooled=100)
    assert sorted(k.request for k in kept) == sorted(requests)
    assert {k.destination for k in kept} == {address + "/v1/traces"}


class FullSpool(Outbox):
    def put(self, destination: str, request: Request) -> None:
        raise SpoolError(f"no room for {request.items} items of {destination}")


def test_what_cannot_be_spooled_is_rejected(tmp_path: Path) -> None:
    with FullSpool(tmp_path) as spool:
        outcome = deliver(f"http://127.0.0.1:{free_port()}", trace_requests(4), give_up_s=0.1, spool=spool)
    assert (outcome.rejected, outcome.spooled) == (20, 0)
    assert "no room for 5 items" in outcome.reasons[0]


def test_any_acceptance_starts_the_patience_anew(receiver: Receiver) -> None:
    """1 s of patience outlasts 1.8 s of trouble, as now and then a request is taken."""
    pause = Answer(code=grpc.StatusCode.UNAVAILABLE, retry_info_s=0.3)
    receiver.script("metrics", [pause, ACCEPTED] * 6)
    begin = time.monotonic()
    assert deliver(receiver.grpc_url, [metric_request(i) for i in range(1, 8)], give_up_s=1.0) == Outcome(delivered=7)
    assert time.monotonic() - begin > 1.5


def test_there_is_a_last_attempt_when_the_patience_ends(receiver: Receiver, to: str) -> None:
    """However long the backoff would wait: the destination may be back by then."""
    receiver.script("traces", [UNAVAILABLE])
    endpoint = endpoints(to, {})["traces"]
    slow = Backoff(initial_s=1e6, longest_s=1e6)
    destination = Destination("traces", endpoint, sender_for(endpoint), give_up_s=0.3, spool=None, backoff=slow)
    destination.put(trace_request(5))
    assert destination.close() == Outcome(delivered=5)


def test_a_wait_beyond_the_patience_is_not_waited_for(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(status=503, retry_after="99999999999999999999")] * 50)
    begin = time.monotonic()
    outcome = deliver(receiver.http_url, trace_requests(10), give_up_s=0.4)
    assert time.monotonic() - begin < 5
    assert outcome.delivered + outcome.rejected == 50
    assert len(receiver.attempts) <= 4


def test_all_threads_wait_as_long_as_one_was_told_to(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(status=429, retry_after="1")])
    requests = trace_requests(30)
    sender_endpoint = endpoints(receiver.http_url, {})["traces"]
    destination = Destination("traces", sender_endpoint, sender_for(sender_endpoint), give_up_s=10, spool=None, backoff=QUICK)
    begin = time.monotonic()
    destination.put(requests[0])
    while not receiver.attempts:
        time.sleep(0.005)
    time.sleep(0.05)
    for request in requests[1:]:
        destination.put(request)
    assert destination.close() == Outcome(delivered=150)
    assert time.monotonic() - begin >= 1.0


class Gate:
    """A sender that lets nothing through until it is opened."""

    def __init__(self) -> None:
        self.opened, self.sent = threading.Event(), 0

    def send(self, request: Request) -> Verdict:
        self.opened.wait()
        self.sent += request.items
        return Accepted()

    def close(self) -> None:
        """Nothing to give back."""


def test_a_slow_destination_holds_back_its_producer() -> None:
    gate, handed_in = Gate(), []
    destination = Destination("metrics", endpoints(None, {})["metrics"], gate, give_up_s=9, spool=None, backoff=QUICK)

    def produce(requests: Iterable[Request]) -> None:
        for request in requests:
            destination.put(request)
            handed_in.append(request)

    thread = threading.Thread(target=produce, args=([metric_request(i) for i in range(200)],))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    assert len(handed_in) == QUEUE_REQUESTS + 1
    gate.opened.set()
    thread.join()
    assert destination.close() == Outcome(delivered=200)


class Fussy(Gate):
    """Puts off one request for a second and takes one of the others every 50 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.begin_s, self.lock = time.monotonic(), threading.Lock()

    def send(self, request: Request) -> Verdict:
        if request.items == 7 and time.monotonic() < self.begin_s + 1.0:
            return Retry("not now")
        with self.lock:
            time.sleep(0.05)
        return Accepted()


def test_requests_that_are_accepted_keep_up_the_patience_for_another() -> None:
    destination = Destination("traces", endpoints(None, {})["traces"], Fussy(), give_up_s=0.4, spool=None, backoff=QUICK)
    for request in [trace_request(7), *trace_requests(30)]:
        destination.put(request)
    assert destination.close() == Outcome(delivered=157)


class OnceBusy(Gate):
    def send(self, request: Request) -> Verdict:
        self.sent += request.items
        return Retry("busy") if self.sent == request.items else Accepted()


def test_time_without_anything_to_send_does_not_wear_out_the_patience() -> None:
    destination = Destination("metrics", endpoints(None, {})["metrics"], OnceBusy(), give_up_s=0.2, spool=None, backoff=QUICK)
    time.sleep(0.3)
    destination.put(metric_request(1))
    assert destination.close() == Outcome(delivered=1)


class Broken(Gate):
    def send(self, request: Request) -> Verdict:
        self.sent += 1
        if self.sent % 2:
            raise ZeroDivisionError(f"of {request.signal}")
        return Accepted()


def test_an_error_of_ours_loses_no_count() -> None:
    destination = Destination("metrics", endpoints(None, {})["metrics"], Broken(), give_up_s=9, spool=None, backoff=QUICK)
    for i in range(10):
        destination.put(metric_request(i))
    outcome = destination.close()
    assert (outcome.delivered, outcome.rejected) == (5, 5)
    assert outcome.reasons == ("a bug in otelbridge: ZeroDivisionError: of metrics (5 data points)",)


# --- the sink ---------------------------------------------------------------------------------------

SCOPE = Scope("otelbridge.test", "1")
RESOURCE = Resource((("service.name", "qemu"),))
PAGES = Metric("qemu.migration.ram.pages", "sum", "{page}", "Pages sent.", SCOPE, monotonic=True)


def finished_span(number: int) -> FinishedSpan:
    ids = number.to_bytes(16, "big"), number.to_bytes(8, "big")
    return FinishedSpan(*ids, b"", SCOPE, "ram", 1, NOW_NS, NOW_NS + number, (("page", number),))


def test_spans_and_points_go_all_the_way(receiver: Receiver, to: str) -> None:
    receiver.script("traces", [UNAVAILABLE])
    sink = otlp_sink(to, {E + "COMPRESSION": "gzip"}, give_up_s=10, spool=None)
    for start in range(1, 5001, 500):
        sink.spans(RESOURCE, [finished_span(i) for i in range(start, start + 500)])
        sink.points(RESOURCE, [MetricPoint(PAGES, (), NOW_NS, NOW_NS + start, start)])
    assert sink.close() == {"traces": Outcome(delivered=5000), "metrics": Outcome(delivered=10)}
    assert sorted(span_numbers(receiver)) == list(range(1, 5001))
    assert [p.point.as_int for p in receiver.points()] == list(range(1, 5001, 500))


def test_one_signal_does_not_wait_for_the_other(receiver: Receiver) -> None:
    """Traces have nobody who listens; metrics are delivered all the same."""
    env = {E + "ENDPOINT": receiver.http_url, E + "TRACES_ENDPOINT": f"http://127.0.0.1:{free_port()}/v1/traces"}
    sink = OtlpSink(endpoints(None, env), give_up_s=0.3, backoff=QUICK)
    sink.spans(RESOURCE, [finished_span(1)])
    sink.points(RESOURCE, [MetricPoint(PAGES, (), NOW_NS, NOW_NS + 1, 7)])
    outcomes = sink.close()
    assert outcomes["traces"].rejected == 1
    assert outcomes["metrics"] == Outcome(delivered=1)


def test_nothing_handed_in_sends_nothing(receiver: Receiver, to: str) -> None:
    sink = otlp_sink(to, {}, give_up_s=10, spool=None)
    sink.spans(RESOURCE, [])
    assert sink.close() == {"traces": Outcome(), "metrics": Outcome()}
    assert receiver.attempts == []


def test_no_limit_on_attempts_still_gives_up(receiver: Receiver) -> None:
    sink = OtlpSink(endpoints(receiver.http_url, {E + "TIMEOUT": "0"}), give_up_s=10)
    sink.spans(RESOURCE, [finished_span(1)])
    assert sink.close()["traces"] == Outcome(delivered=1)


def test_a_bad_address_is_found_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="--to"):
        otlp_sink("localhost:4317", {}, give_up_s=1, spool=None)


INTERRUPTED = """
import sys
from pathlib import Path
from otelbridge.otlp.delivery import OtlpSink
from otelbridge.otlp.outbox import Outbox
from otelbridge.otlp.settings import endpoints
from otelbridge.records import FinishedSpan, Resource, Scope

spool = Outbox(Path(sys.argv[2]))
sink = OtlpSink(endpoints(sys.argv[1], {}), give_up_s=60, spool=spool)
sink.spans(Resource(()), [FinishedSpan(b"t" * 16, b"s" * 8, b"", Scope("s", "1"), "ram", 1, 1, 2, ())])
print("ready", flush=True)
try:
    sink.close()
except KeyboardInterrupt:
    spool.close()
    sys.exit(130)
"""


# The thread that waits is not woken, as it is not by an interrupt that comes between its last instruction and its waiting.
UNWOKEN = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"


@pytest.mark.parametrize("before", ["", UNWOKEN], ids=["", "unwoken"])
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_an_interrupt_ends_the_waiting_and_spools(scheme: str, before: str, tmp_path: Path) -> None:
    program = INTERRUPTED.replace('print("ready"', f'{before}print("ready"')
    command = [sys.executable, "-c", program, f"{scheme}://127.0.0.1:{free_port()}", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        assert "does not take data" in process.stderr.readline()
        begin = time.monotonic()
        process.send_signal(signals.SIGINT)
        assert process.wait(15) == 130
        assert time.monotonic() - begin < 8
        assert "Traceback" not in process.stderr.read()
    with Outbox(tmp_path) as spool:
        assert [k.request.items for k in spool.pending()] == [1]


def test_an_interrupt_of_a_waiting_producer_lets_close_end_soon(tmp_path: Path) -> None:
    """The destination accepts connections and says nothing; all that was handed in is in the spool."""
    main = threading.get_ident()
    with Outbox(tmp_path) as spool, socket.create_server(("127.0.0.1", 0)) as deaf:
        to = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        sink = OtlpSink(endpoints(to, {E + "TIMEOUT": "300"}), give_up_s=60, spool=spool)
        timer = threading.Timer(0.2, signals.pthread_kill, (main, signals.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            sink.take(trace_requests(200))
        begin = time.monotonic()
        outcome = sink.close()["traces"]
        assert time.monotonic() - begin < 5
        kept = sum(k.request.items for k in spool.pending())
        timer.join()
    assert kept >= 5 * QUEUE_REQUESTS
    assert outcome == Outcome(spooled=kept)
