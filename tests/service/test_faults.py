"""Whatever a collector does, every request arrives as it was put in, or is kept apart with the collector's words."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import grpc
import pytest

from otelbridge.otlp.outbox import Outbox
from otelbridge.otlp.retry import Backoff
from otelbridge.records import Request
from tests.convert.relay import Relay
from tests.pki import Authority
from tests.receiver import BAD, TOO_LARGE, UNAVAILABLE, Answer, Receiver, ServerTls
from tests.service.rig import Rig, destination, eventually, names, points, rig, traces

PUT = [*(traces(number) for number in range(6)), *(points(number) for number in range(6))]
SPANS = POINTS = 18


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def address(receiver: Receiver, protocol: str) -> str:
    return receiver.grpc_url if protocol == "grpc" else receiver.http_url


def kept_apart(folder: Path) -> list[tuple[Request, str]]:
    """The refused requests and the words, as the closed outbox has them on disk."""
    with Outbox.existing(folder) as outbox:
        assert outbox.verify() == []
        assert list(outbox.pending()) == []
        return [(kept.request, reason) for kept, reason in outbox.rejected()]


def assert_all_arrived(rig: Rig, receiver: Receiver, put: list[Request] = PUT, *, is_once: bool = True) -> None:
    """Everything was taken as the bytes that were put in, once unless said, points in their order; the counters say so."""
    rig.drained()
    eventually(
        lambda: rig.counts["export.spans_delivered"] + rig.counts["export.points_delivered"] == sum(r.items for r in put)
    )
    arrived = receiver.requests if is_once else dict.fromkeys(receiver.requests)
    assert sorted(arrived) == sorted((r.signal, r.body) for r in put)
    assert [b for s, b in arrived if s == "metrics"] == [r.body for r in put if r.signal == "metrics"]
    assert rig.rejected() == 0
    assert rig.counts["export.spans_delivered"] == sum(r.items for r in put if r.signal == "traces")
    assert rig.counts["export.spans_rejected"] == rig.counts["export.points_rejected"] == 0
    eventually(lambda: {s.state for s in rig.senders.status()} == {"idle"})
    eventually(lambda: {s.error for s in rig.senders.status()} == {""})


# --- gone -----------------------------------------------------------------------------------------------


def test_collector_down_from_the_start(receiver: Receiver, protocol: str, tmp_path: Path) -> None:
    relay = Relay(address(receiver, protocol))
    relay.up()
    relay.down()
    with rig(tmp_path, destination(relay.url)) as built:
        built.put(*PUT)
        eventually(lambda: built.counts["export.requests_retried"] >= 8)
        assert built.pending() == 12
        assert built.status().error
        assert built.status().since_ns is not None
        with relay:
            assert_all_arrived(built, receiver)
            assert built.status().since_ns is None


def test_collector_gone_in_the_middle(receiver: Receiver, protocol: str, tmp_path: Path) -> None:
    with Relay(address(receiver, protocol)) as relay, rig(tmp_path, destination(relay.url)) as built:
        built.put(*PUT[::2])
        built.drained()
        relay.down()
        built.put(*PUT[1::2])
        eventually(lambda: built.counts["export.requests_retried"] >= 5)
        assert len(receiver.requests) == 6
        relay.up()
        assert_all_arrived(built, receiver, [*PUT[::2], *PUT[1::2]])


def test_reset_in_the_middle_of_a_request(receiver: Receiver, protocol: str, tmp_path: Path) -> None:
    put = [traces(number, 2000, "x" * 100) for number in range(3)]
    with Relay(address(receiver, protocol), dies_after=300_000) as relay, rig(tmp_path, destination(relay.url)) as built:
        built.put(*put)
        assert relay.died.wait(20)
        eventually(lambda: built.counts["export.requests_retried"] > 0)
        relay.up()
        assert_all_arrived(built, receiver, put)


def test_name_that_does_not_resolve(receiver: Receiver, protocol: str, tmp_path: Path) -> None:
    nowhere = f"{protocol}://collector.invalid:4318"
    with rig(tmp_path, destination(nowhere)) as built:
        built.put(*PUT)
        eventually(lambda: built.status().error and built.status("metrics").error)
        assert built.pending() == 12
        built.senders.update([destination(address(receiver, protocol))])
        assert_all_arrived(built, receiver)


# --- answers that may pass ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_waited_for(receiver: Receiver, status: int, tmp_path: Path) -> None:
    answer = Answer(status=status, message="slow down", retry_after="1")
    receiver.script("metrics", [answer])
    with rig(tmp_path, destination(receiver.http_url)) as built:
        begin_s = time.monotonic()
        built.put(*PUT)
        eventually(lambda: f"HTTP {status}" in built.status("metrics").error)
        assert "slow down" in built.status("metrics").error
        assert built.status("metrics").state == "waiting"
        assert_all_arrived(built, receiver)
        assert time.monotonic() - begin_s >= 1
        assert built.counts["export.requests_retried"] == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_as_a_date_is_waited_for(receiver: Receiver, status: int, tmp_path: Path) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    receiver.script("metrics", [Answer(status=status, retry_after=format_datetime(until, usegmt=True))])
    with rig(tmp_path, destination(receiver.http_url)) as built:
        built.put(*PUT)
        assert_all_arrived(built, receiver)
        assert datetime.now(UTC) >= until
        assert built.counts["export.requests_retried"] == 1


def test_retry_after_holds_for_all_requests_of_a_destination(receiver: Receiver, tmp_path: Path) -> None:
    receiver.script("traces", [Answer(status=503, retry_after="1")])
    with rig(tmp_path, destination(receiver.http_url)) as built:
        built.put(traces(0))
        eventually(lambda: built.counts["export.requests_retried"] == 1)
        built.put(*(traces(number) for number in range(1, 6)))
        built.drained()
        assert receiver.attempts == ["traces"] * 7
        assert sorted(names(body for _, body in receiver.requests)) == sorted(names(traces(n).body for n in range(6)))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_retry_info_is_waited_for(receiver: Receiver, code: grpc.StatusCode, tmp_path: Path) -> None:
    receiver.script("metrics", [Answer(code=code, message="slow down", retry_info_s=0.7)])
    with rig(tmp_path, destination(receiver.grpc_url)) as built:
        begin_s = time.monotonic()
        built.put(*PUT)
        eventually(lambda: built.status("metrics").error == f"{code.name}: slow down")
        assert_all_arrived(built, receiver)
        assert time.monotonic() - begin_s >= 0.7


def test_resource_exhausted_without_retry_info_is_final(receiver: Receiver, tmp_path: Path) -> None:
    receiver.script("traces", [Answer(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="quota of the tenant")])
    with rig(tmp_path, destination(receiver.grpc_url)) as built:
        built.put(traces(1))
        built.drained()
        built.put(traces(2))
        built.drained()
        assert built.counts.by("export.spans_rejected", "reason") == {"refused": 3}
    assert kept_apart(tmp_path) == [(traces(1), "RESOURCE_EXHAUSTED: quota of the tenant")]
    assert [body for _, body in receiver.requests] == [traces(2).body]


@pytest.mark.parametrize("action", ["reset", "half"])
def test_connection_that_breaks_off_before_or_within_the_answer(
    receiver: Receiver, protocol: str, action: str, tmp_path: Path
) -> None:
    broken = [Answer(action=action)] * 2  # type: ignore[arg-type]
    receiver.script("traces", broken)
    receiver.script("metrics", broken)
    with rig(tmp_path, destination(address(receiver, protocol))) as built:
        built.put(*PUT)
        # Over gRPC all requests share the connection: answers to others are lost with it.
        assert_all_arrived(built, receiver, is_once=protocol == "http")
        assert built.counts["export.requests_retried"] >= (4 if protocol == "http" else 2)


def test_answer_that_is_lost_costs_one_more_copy_of_the_same_bytes(receiver: Receiver, protocol: str, tmp_path: Path) -> None:
    receiver.script("metrics", [Answer(action="lose")])
    with rig(tmp_path, destination(address(receiver, protocol))) as built:
        built.put(points(1), points(2))
        built.drained()
        assert [body for _, body in receiver.requests] == [points(1).body, points(1).body, points(2).body]


def test_answer_that_drips_in_without_an_end(receiver: Receiver, protocol: str, tmp_path: Path) -> None:
    drip = Answer(action="drip")
    receiver.script("traces", [drip])
    receiver.script("metrics", [drip])
    where = destination(address(receiver, protocol), {"OTEL_EXPORTER_OTLP_TIMEOUT": "500"})
    with rig(tmp_path, where) as built:
        built.put(*PUT)
        assert_all_arrived(built, receiver)
        assert built.counts["export.requests_retried"] == 2
    receiver.closing.set()


def test_server_that_ends_in_order_and_begins_again(receiver: Receiver, tmp_path: Path) -> None:
    """GOAWAY: the connection ends, what is under way is answered."""
    with rig(tmp_path, destination(receiver.grpc_url)) as built:
        put = []
        for round_number in range(3):
            new = [traces(10 * round_number + number) for number in range(5)] + [points(round_number)]
            put += new
            built.put(*new)
            if round_number < 2:
                receiver.restart_grpc()
        assert_all_arrived(built, receiver, put)


# --- answers that settle --------------------------------------------------------------------------------


def test_partial_success_is_counted_and_never_sent_again(receiver: Receiver, protocol: str, tmp_path: Path) -> None:
    receiver.script("traces", [Answer(rejected=2, message="too old")])
    receiver.script("metrics", [Answer(rejected=99, message="out of order")])
    with rig(tmp_path, destination(address(receiver, protocol))) as built:
        built.put(traces(1), points(1))
        built.drained()
        eventually(lambda: built.counts["export.points_rejected"] and built.counts["export.spans_delivered"])
        eventually(lambda: built.status().rejected)
        assert len(receiver.attempts) == 2
        assert built.counts.by("export.spans_rejected", "reason") == {"partial_success": 2}
        assert built.counts.by("export.points_rejected", "reason") == {"partial_success": 3}
        assert (built.counts["export.spans_delivered"], built.counts["export.points_delivered"]) == (1, 0)
        assert (built.status().accepted, built.status().rejected) == (1, 2)
    assert kept_apart(tmp_path) == []


@pytest.mark.parametrize("status", [301, 307, 400, 401])
def test_http_answer_that_is_final(receiver: Receiver, status: int, tmp_path: Path) -> None:
    moved = (("Location", "http://elsewhere.example/v1/traces?token=secret"),)
    answer = Answer(status=status, message="not you", headers=moved if status < 400 else ())
    receiver.script("traces", [answer])
    with rig(tmp_path, destination(receiver.http_url)) as built:
        built.put(traces(1))
        built.drained()
        built.put(traces(2))
        built.drained()
        eventually(lambda: built.counts["export.spans_delivered"] == 3)
        assert built.counts.by("export.spans_rejected", "reason") == {"refused": 3}
        assert built.counts["export.requests_sent"] == 2
    ((request, words),) = kept_apart(tmp_path)
    assert request == traces(1)
    assert f"HTTP {status}" in words
    assert ("not you" if status >= 400 else "'http://elsewhere.example/v1/traces', which is not followed") in words
    assert "secret" not in words
    assert [body for _, body in receiver.requests] == [traces(2).body]


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED])
def test_grpc_answer_that_is_final(receiver: Receiver, code: grpc.StatusCode, tmp_path: Path) -> None:
    receiver.script("traces", [Answer(code=code, message="not you")])
    with rig(tmp_path, destination(receiver.grpc_url)) as built:
        built.put(traces(1))
        built.drained()
        assert built.rejected() == 1
    assert kept_apart(tmp_path) == [(traces(1), f"{code.name}: not you")]


def test_request_that_is_too_large_goes_in_halves(protocol: str, tmp_path: Path) -> None:
    put = traces(1, 9)
    with Receiver(limit_bytes=200) as receiver, rig(tmp_path, destination(address(receiver, protocol))) as built:
        built.put(put)
        built.drained()
        eventually(lambda: built.counts["export.spans_delivered"] == 9)
        assert names(body for _, body in receiver.requests) == names([put.body])
        assert len(receiver.requests) > 1
        assert built.counts["export.requests_split"] == len(receiver.requests) - 1
    assert kept_apart(tmp_path) == []


def test_single_item_that_is_too_large_is_kept_apart_and_its_neighbours_arrive(protocol: str, tmp_path: Path) -> None:
    large = traces(2, 1, "x" * 500)
    joined = Request("traces", traces(1, 2).body + large.body + traces(3, 2).body, 5)
    with Receiver(limit_bytes=200) as receiver, rig(tmp_path, destination(address(receiver, protocol))) as built:
        built.put(joined)
        built.drained()
        eventually(lambda: built.counts["export.spans_delivered"] == 4)
        assert sorted(names(body for _, body in receiver.requests)) == ["1/0", "1/1", "3/0", "3/1"]
        assert built.counts.by("export.spans_rejected", "reason") == {"too_large": 1}
    ((request, words),) = kept_apart(tmp_path)
    assert names([request.body]) == names([large.body])
    assert "a single item is too large" in words


def test_halves_that_are_left_survive_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    receiver.script("traces", [TOO_LARGE, Answer(), UNAVAILABLE])
    with rig(tmp_path, destination(receiver.http_url), backoff=Backoff(initial_s=60, longest_s=60)) as built:
        built.put(traces(1, 8))
        eventually(lambda: built.counts["export.requests_retried"] == 1)
        assert [amount.items for amount in built.outbox.status().pending.values()] == [4]
    with rig(tmp_path, destination(receiver.http_url)) as built:
        built.drained()
    assert names(body for _, body in receiver.requests) == names([traces(1, 8).body])


def test_slow_destination_holds_up_no_other(receiver: Receiver, tmp_path: Path) -> None:
    with Receiver() as slow:
        slow.script("traces", [Answer(action="hang")] * 4)
        slow.script("metrics", [Answer(action="hang")])
        patient = {"OTEL_EXPORTER_OTLP_TIMEOUT": "60000"}
        both = (destination(slow.http_url, patient, name="slow"), destination(receiver.http_url))
        with rig(tmp_path, *both) as built:
            built.put(*PUT, name="slow")
            eventually(lambda: len(slow.attempts) == 5)
            built.put(*PUT)
            eventually(lambda: len(receiver.requests) == 12)
            eventually(lambda: [s.state for s in built.senders.status()] == ["sending", "sending", "idle", "idle"])
            assert built.pending() == 12
            slow.closing.set()


# --- TLS ------------------------------------------------------------------------------------------------

E = "OTEL_EXPORTER_OTLP_"


def test_authority_that_is_wrong_and_then_put_right(protocol: str, tmp_path: Path) -> None:
    authority, stranger = Authority.make(tmp_path, "authority"), Authority.make(tmp_path, "stranger")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(stranger.path.read_bytes())
    with Receiver(ServerTls(*authority.issue("server", "localhost"))) as receiver:
        where = destination(address(receiver, protocol), {E + "CERTIFICATE": str(ca)})
        with rig(tmp_path / "outbox", where) as built:
            built.put(*PUT)
            eventually(lambda: built.counts["export.requests_retried"] >= 6)
            assert "certificate" in built.status().error.lower()
            assert receiver.attempts == []
            ca.write_bytes(authority.path.read_bytes())
            assert_all_arrived(built, receiver)


def test_server_certificate_that_expired_and_is_renewed(protocol: str, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path, "authority")
    with Receiver(ServerTls(*authority.issue("server", "localhost", is_expired=True))) as receiver:
        where = destination(address(receiver, protocol), {E + "CERTIFICATE": str(authority.path)})
        with rig(tmp_path / "outbox", where) as built:
            built.put(*PUT)
            eventually(lambda: built.counts["export.requests_retried"] >= 6)
            authority.issue("server", "localhost")
            receiver.renew_http()
            receiver.restart_grpc()
            assert_all_arrived(built, receiver)


def test_own_certificate_that_expired_and_is_renewed_on_disk(protocol: str, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path, "authority")
    cert, key = authority.issue("client", is_expired=True)
    env = {E + "CERTIFICATE": str(authority.path), E + "CLIENT_CERTIFICATE": str(cert), E + "CLIENT_KEY": str(key)}
    with (
        Receiver(ServerTls(*authority.issue("server", "localhost"), client_ca=authority.path)) as receiver,
        rig(tmp_path / "outbox", destination(address(receiver, protocol), env)) as built,
    ):
        built.put(*PUT)
        eventually(lambda: built.counts["export.requests_retried"] >= 6)
        assert receiver.attempts == []
        authority.issue("client")
        assert_all_arrived(built, receiver)


def test_certificate_that_cannot_be_used_keeps_the_one_before(
    protocol: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority.make(tmp_path, "authority")
    cert, key = authority.issue("client")
    env = {E + "CERTIFICATE": str(authority.path), E + "CLIENT_CERTIFICATE": str(cert), E + "CLIENT_KEY": str(key)}
    with (
        Receiver(ServerTls(*authority.issue("server", "localhost"), client_ca=authority.path)) as receiver,
        rig(tmp_path / "outbox", destination(address(receiver, protocol), env)) as built,
    ):
        built.put(*PUT[:6])
        built.drained()
        good = cert.read_bytes()
        cert.write_bytes(b"-----BEGIN CERTIFICATE-----\nhalf a fi")
        time.sleep(0.15)  # the files are looked at again after that
        built.put(*PUT[6:])
        eventually(lambda: "the ones read before stay in use" in built.status("metrics").error)
        built.drained()
        # New connections use it too.
        receiver.restart_grpc()
        built.put(traces(50))
        built.drained()
        assert "cannot be used" in caplog.text
        cert.write_bytes(good)
        time.sleep(0.15)
        built.put(traces(51))
        assert_all_arrived(built, receiver, [*PUT, traces(50), traces(51)])


# --- what else a service meets --------------------------------------------------------------------------


def test_secrets_that_a_server_repeats_are_in_no_message(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = {E + "HEADERS": "authorization=Bearer%20s3cr3t-t0ken"}
    receiver.script("traces", [Answer(status=401, message="no such token: s3cr3t-t0ken")])
    receiver.script("metrics", [Answer(status=503, message="Bearer s3cr3t-t0ken is slow", retry_after="30")])
    with rig(tmp_path, destination(receiver.http_url, env)) as built:
        built.put(traces(1), points(1))
        eventually(lambda: built.counts["export.spans_rejected"] and built.counts["export.requests_retried"])
        assert "s3cr3t" not in repr(built.senders.status()) + caplog.text
        assert "*** is slow" in built.status("metrics").error
    with Outbox.existing(tmp_path) as outbox:
        ((_, words),) = outbox.rejected()
    assert words.endswith("no such token: ***")


def test_stopping_waits_for_what_is_under_way_and_begins_no_more(receiver: Receiver, tmp_path: Path) -> None:
    receiver.script("traces", [Answer(action="hang")] * 4)
    with rig(tmp_path, destination(receiver.http_url)) as built:
        built.put(*(traces(number) for number in range(8)))
        eventually(lambda: len(receiver.attempts) == 4)
        begin_s = time.monotonic()
        assert not built.senders.stop(begin_s + 0.3)
        assert 0.3 <= time.monotonic() - begin_s < 2
        assert len(receiver.attempts) == 4
        assert built.pending() == 8
        receiver.closing.set()


def test_stopping_ends_at_once_while_a_destination_is_waited_for(tmp_path: Path) -> None:
    slow = Backoff(initial_s=60, longest_s=60)
    with rig(tmp_path, destination(f"http://localhost:{unused_port()}"), backoff=slow) as built:
        built.put(*PUT)
        eventually(lambda: {s.state for s in built.senders.status()} == {"waiting"})
        begin_s = time.monotonic()
        assert built.senders.stop(begin_s + 20)
        assert time.monotonic() - begin_s < 2
        assert built.pending() == 12


def test_reload_moves_what_waits_and_leaves_the_same_alone(receiver: Receiver, tmp_path: Path) -> None:
    with Receiver() as other:
        same = destination(other.http_url, name="other")
        with rig(tmp_path, destination(f"http://localhost:{unused_port()}"), same) as built:
            built.put(*PUT)
            built.put(*PUT, name="other")
            eventually(lambda: len(other.requests) == 12)
            before = built.status(name="other").attempts
            eventually(lambda: built.status().error)
            built.senders.update([destination(receiver.http_url), same])
            eventually(lambda: len(receiver.requests) == 12)
            assert built.status(name="other").attempts == before == 6


def test_reload_keeps_the_order_of_points_that_are_under_way(receiver: Receiver, tmp_path: Path) -> None:
    receiver.script("metrics", [Answer(action="hang")])
    before = destination(receiver.http_url, {"OTEL_EXPORTER_OTLP_TIMEOUT": "1500"})
    with rig(tmp_path, before) as built:
        built.put(points(1), points(2))
        eventually(lambda: receiver.attempts == ["metrics"])
        built.senders.update([destination(receiver.http_url)])
        built.drained()
        assert [body for _, body in receiver.requests] == [points(1).body, points(2).body]
        receiver.closing.set()


def test_requests_of_a_destination_that_is_gone_stay_and_are_told_once(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rig(tmp_path, destination(receiver.http_url)) as built:
        built.put(traces(1), name="old")
        for _ in range(3):
            built.senders.update([destination(receiver.http_url)])
        assert caplog.text.count("wait for the destination 'old', which is no longer configured") == 1
        assert built.pending() == 1


def test_refused_request_is_kept_apart_after_a_bad_one_among_good_ones(
    receiver: Receiver, protocol: str, tmp_path: Path
) -> None:
    receiver.script("metrics", [Answer(), BAD, Answer()])
    with rig(tmp_path, destination(address(receiver, protocol))) as built:
        built.put(points(1), points(2), points(3))
        built.drained()
    assert [request for request, _ in kept_apart(tmp_path)] == [points(2)]
    assert [body for _, body in receiver.requests] == [points(1).body, points(3).body]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
