"""What an outbox kept is sent again: as the same bytes, to where it was meant for, and settled at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.errors import SpoolError
from otelbridge.otlp.delivery import otlp_sink
from otelbridge.otlp.outbox import DATABASE, Outbox
from otelbridge.otlp.replay import replay, replay_spool, show_spool
from otelbridge.otlp.retry import Accepted, Backoff, Rejected, Retry, TooLarge, Verdict
from otelbridge.records import INTERNAL, FinishedSpan, Metric, MetricPoint, Request, Resource, Scope, Signal
from tests.receiver import UNAVAILABLE, Receiver

COLLECTOR = "http://collector:4318/v1/traces"
OTHER = "grpc://other:4317"
QUICK = Backoff(initial_s=0.001, longest_s=0.01)


def spans(*names: str) -> Request:
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    for name in names:
        scope.spans.add(name=name, trace_id=b"t" * 16, span_id=b"s" * 8)
    return Request("traces", message.SerializeToString(), len(names))


def names_in(body: bytes) -> list[str]:
    message = ExportTraceServiceRequest.FromString(body)
    return [span.name for r in message.resource_spans for s in r.scope_spans for span in s.spans]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "spool") as opened:
        yield opened


class Script:
    """Answers by what is asked, and remembers it."""

    def __init__(self, answer: Callable[[str, Request], Verdict]) -> None:
        self.answer = answer
        self.sent: list[tuple[str, Request]] = []

    def __call__(self, destination: str, _: Signal) -> Callable[[Request], Verdict]:
        def send(request: Request) -> Verdict:
            self.sent.append((destination, request))
            return self.answer(destination, request)

        return send


def test_each_request_goes_to_its_own_destination_as_the_same_bytes_and_is_removed(outbox: Outbox) -> None:
    put = [(COLLECTOR, spans("a", "b")), (OTHER, spans("c")), (COLLECTOR, spans("d"))]
    outbox.put_many(put)
    left_when_sent = []

    def accept(_: str, __: Request) -> Verdict:
        left_when_sent.append(outbox.counts().pending)
        return Accepted()

    script = Script(accept)
    done = replay(outbox, script, give_up_s=1)
    assert script.sent == put
    assert left_when_sent == [3, 2, 1]
    assert outbox.counts().pending == 0
    assert done.outcomes["traces"].delivered == 4


def test_a_partial_success_counts_what_was_refused_and_is_not_sent_again(outbox: Outbox) -> None:
    outbox.put(COLLECTOR, spans("a", "b", "c"))
    script = Script(lambda _, __: Accepted(rejected_items=1, message="too old"))
    outcome = replay(outbox, script, give_up_s=1).outcomes["traces"]
    assert (outcome.delivered, outcome.rejected, len(script.sent)) == (2, 1, 1)
    assert "too old" in outcome.reasons[0]
    assert outbox.counts().pending == 0


def test_a_refused_request_is_kept_apart_and_the_next_one_is_sent(outbox: Outbox) -> None:
    outbox.put_many([(COLLECTOR, spans("bad")), (COLLECTOR, spans("good"))])
    script = Script(lambda _, r: Rejected("HTTP 400: no") if names_in(r.body) == ["bad"] else Accepted())
    outcome = replay(outbox, script, give_up_s=1).outcomes["traces"]
    assert (outcome.delivered, outcome.rejected, outcome.spooled) == (1, 1, 0)
    assert [(names_in(k.request.body), why) for k, why in outbox.rejected()] == [(["bad"], "HTTP 400: no")]


def test_a_destination_that_takes_nothing_is_given_up_and_the_others_are_not(outbox: Outbox) -> None:
    outbox.put_many([(COLLECTOR, spans("a")), (OTHER, spans("b")), (COLLECTOR, spans("c", "d"))])
    script = Script(lambda where, _: Retry("connection refused") if where == COLLECTOR else Accepted())
    outcome = replay(outbox, script, give_up_s=0.05, backoff=QUICK).outcomes["traces"]
    assert (outcome.delivered, outcome.spooled, outcome.rejected) == (1, 3, 0)
    assert "gave up after 0.05 s" in outcome.reasons[0]
    assert "connection refused" in outcome.reasons[0]
    assert [names_in(k.request.body) for k in outbox.pending()] == [["a"], ["c", "d"]]
    # The first request was tried more than once, the one behind it not at all.
    assert {names_in(r.body)[0] for where, r in script.sent if where == COLLECTOR} == {"a"}
    assert len(script.sent) > 2


def test_a_retry_that_succeeds_sends_the_same_bytes(outbox: Outbox) -> None:
    outbox.put(COLLECTOR, spans("a"))
    answers: list[Verdict] = [Accepted(), Retry("HTTP 503", after_s=0.0), Retry("HTTP 503")]
    script = Script(lambda _, __: answers.pop())
    assert replay(outbox, script, give_up_s=30, backoff=QUICK).outcomes["traces"].delivered == 1
    assert len({r.body for _, r in script.sent}) == 1
    assert len(script.sent) == 3


def test_a_wait_longer_than_what_is_left_is_not_waited_for(outbox: Outbox) -> None:
    outbox.put(COLLECTOR, spans("a"))
    script = Script(lambda _, __: Retry("HTTP 429", after_s=3600))
    outcome = replay(outbox, script, give_up_s=5).outcomes["traces"]
    assert outcome.spooled == 1
    assert "asked to wait for 3600 s" in outcome.reasons[0]
    assert len(script.sent) == 1


def takes_up_to(items: int) -> Callable[[str, Request], Verdict]:
    return lambda _, request: Accepted() if request.items <= items else TooLarge("HTTP 413")


def test_a_request_that_is_too_large_is_sent_in_halves_in_their_order(outbox: Outbox) -> None:
    outbox.put_many([(COLLECTOR, spans(*"abcde")), (COLLECTOR, spans("f"))])
    script = Script(takes_up_to(2))
    assert replay(outbox, script, give_up_s=1).outcomes["traces"].delivered == 6
    assert [names_in(r.body) for _, r in script.sent if r.items <= 2] == [["a", "b"], ["c"], ["d", "e"], ["f"]]
    assert outbox.counts().pending == 0


def test_a_single_item_that_is_too_large_is_kept_apart(outbox: Outbox) -> None:
    outbox.put(COLLECTOR, spans("a", "b"))
    script = Script(lambda _, r: Accepted() if names_in(r.body) == ["b"] else TooLarge("HTTP 413"))
    outcome = replay(outbox, script, give_up_s=1).outcomes["traces"]
    assert (outcome.delivered, outcome.rejected) == (1, 1)
    assert [names_in(k.request.body) for k, _ in outbox.rejected()] == [["a"]]
    assert outbox.counts().pending == 0
    assert outbox.verify() == []


def test_given_up_between_halves_only_what_was_not_taken_stays_and_in_its_place(outbox: Outbox) -> None:
    outbox.put_many([(COLLECTOR, spans(*"abcdefgh")), (COLLECTOR, spans("i"))])
    taken: list[str] = []

    def one_half(_: str, request: Request) -> Verdict:
        if taken:
            return Retry("connection refused")
        if request.items > 2:
            return TooLarge("HTTP 413")
        taken.extend(names_in(request.body))
        return Accepted()

    outcome = replay(outbox, Script(one_half), give_up_s=0, backoff=QUICK).outcomes["traces"]
    assert (outcome.delivered, outcome.spooled, outcome.rejected) == (2, 7, 0)
    assert taken == ["a", "b"]
    assert [(names_in(k.request.body), k.request.items) for k in outbox.pending()] == [(list("cdefgh"), 6), (["i"], 1)]
    assert outbox.verify() == []


def test_a_damaged_request_is_named_and_not_sent(outbox: Outbox) -> None:
    outbox.put_many([(COLLECTOR, spans("a")), (COLLECTOR, spans("b"))])
    outbox._db.execute("UPDATE requests SET body = x'00' WHERE id = 1")
    script = Script(lambda _, __: Accepted())
    done = replay(outbox, script, give_up_s=1)
    assert [names_in(r.body) for _, r in script.sent] == [["b"]]
    assert "request 1 " in done.damaged[0]


class Collector(ThreadingHTTPServer):
    """Takes OTLP/HTTP and remembers paths, Authorization headers and bodies."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, str | None, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, self.headers["Authorization"], body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_spool_is_replayed_over_http_with_headers_from_the_environment(tmp_path: Path) -> None:
    with collector() as server:
        request = spans("a", "b")
        with Outbox(tmp_path) as outbox:
            outbox.put(f"{server.url}/own/v1/traces", request)
        # The protocol of today's environment does not turn a URL that was meant for HTTP into a gRPC target.
        env = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        outcome = replay_spool(tmp_path, to=None, env=env, give_up_s=5).outcomes["traces"]
        assert outcome.delivered == 2
        assert server.got == [("/own/v1/traces", "Bearer x", request.body)]
    with Outbox.existing(tmp_path) as outbox:
        assert outbox.counts().pending == 0


def test_to_stands_in_for_every_destination(tmp_path: Path) -> None:
    with collector() as server:
        with Outbox(tmp_path) as outbox:
            outbox.put_many([(COLLECTOR, spans("a")), (OTHER, spans("b")), (OTHER, Request("metrics", b"", 0))])
        replay_spool(tmp_path, to=server.url, env={}, give_up_s=5)
        assert [path for path, _, _ in server.got] == ["/v1/traces", "/v1/traces", "/v1/metrics"]


def test_a_collector_that_is_gone_costs_one_waiting_and_keeps_everything(tmp_path: Path) -> None:
    with collector() as server:
        gone = server.url
    with Outbox(tmp_path) as outbox:
        outbox.put_many([(COLLECTOR, spans("a")), (OTHER, spans("b"))])
    outcome = replay_spool(tmp_path, to=gone, env={}, give_up_s=0.1).outcomes["traces"]
    assert (outcome.spooled, len(outcome.reasons)) == (2, 1)
    assert gone in outcome.reasons[0]
    with Outbox.existing(tmp_path) as outbox:
        assert [k.destination for k in outbox.pending()] == [COLLECTOR, OTHER]


def test_replay_and_show_of_a_folder_without_a_spool(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="no spool here"):
        replay_spool(tmp_path, to=None, env={}, give_up_s=1)
    with pytest.raises(SpoolError, match="no spool here"):
        next(show_spool(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_show_prints_otlp_json_and_names_what_is_damaged(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put_many([(COLLECTOR, spans("a", "b")), (COLLECTOR, spans("c"))])
        outbox._db.execute("UPDATE requests SET items = 9 WHERE id = 2")
    lines = show_spool(tmp_path)
    shown = json.loads(next(lines))["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert [(s["name"], s["traceId"]) for s in shown] == [("a", (b"t" * 16).hex()), ("b", (b"t" * 16).hex())]
    with pytest.raises(SpoolError, match=r"1 of the pending requests cannot be shown(.|\n)*request 2 "):
        next(lines)
    assert (tmp_path / DATABASE).exists()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_a_sink_spooled_reaches_its_own_destination_once_that_is_back(tmp_path: Path, protocol: str) -> None:
    span = FinishedSpan(b"t" * 16, b"s" * 8, b"", Scope("a", "1"), "migration", INTERNAL, 1_000, 2_000, ())
    metric = Metric("qemu.migration.passes", "sum", "{pass}", "Passes", Scope("a", "1"), monotonic=True)
    point = MetricPoint(metric, (), 1_000, 2_000, 3)
    resource = Resource((("service.name", "qemu"),))
    with Receiver() as receiver:
        receiver.script("traces", [UNAVAILABLE] * 20)
        receiver.script("metrics", [UNAVAILABLE] * 20)
        to = receiver.http_url if protocol == "http" else receiver.grpc_url
        with Outbox(tmp_path) as outbox:
            sink = otlp_sink(to, {}, give_up_s=0, spool=outbox)
            sink.spans(resource, [span])
            sink.points(resource, [point])
            assert {signal: outcome.spooled for signal, outcome in sink.close().items()} == {"traces": 1, "metrics": 1}
            kept = [k.request.body for k in outbox.pending()]
        receiver.script("traces", [])
        receiver.script("metrics", [])
        outcomes = replay_spool(tmp_path, to=None, env={}, give_up_s=10).outcomes
        assert {signal: outcome.delivered for signal, outcome in outcomes.items()} == {"traces": 1, "metrics": 1}
        assert [body for _, body in receiver.requests] == kept
        assert receiver.faults == []
