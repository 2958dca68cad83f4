"""A recording delivered over real sockets: what arrives is what `--to file:` writes, whatever the receiver does."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.otlp import delivery, replay, requests
from otelbridge.otlp.retry import Backoff
from tests.convert.command import Result, call, run
from tests.convert.decoded import lines, points_of, received, spans_of
from tests.convert.relay import Relay
from tests.receiver import ACCEPTED, BAD, UNAVAILABLE, Answer, Receiver

Logs = Callable[[str], list[Path]]
PRECOPY, TLS = "debian-7.2/precopy-busy", "debian-7.2/tls-ok"
E = "OTEL_EXPORTER_OTLP_"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(params=["grpc", "http"])
def to(receiver: Receiver, request: pytest.FixtureRequest) -> str:
    """The receiver's address for each protocol in turn."""
    return receiver.grpc_url if request.param == "grpc" else receiver.http_url


@pytest.fixture
def many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of 20 items, and short waits between attempts."""
    monkeypatch.setattr(requests, "MAX_ITEMS", 20)
    for module in (delivery, replay):
        monkeypatch.setattr(module, "Backoff", lambda: Backoff(initial_s=0.02, longest_s=0.1))


class Written:
    """What `--to file:` writes for some logs."""

    def __init__(self, logs: Sequence[Path], folder: Path) -> None:
        self.accounting = folder / "accounting.json"
        done = call("convert", *logs, "--to", f"file:{folder}", "--accounting", self.accounting)
        assert done.code == 0, done.err
        self.spans = spans_of(lines((folder / "traces.jsonl").read_text()))
        self.points = points_of(lines((folder / "metrics.jsonl").read_text()))
        assert len(self.spans) == self.spans.total() > 90
        assert len(self.points) == self.points.total() > 90


@pytest.fixture(scope="module")
def precopy(logs: Logs, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(logs(PRECOPY), tmp_path_factory.mktemp("precopy"))


@pytest.fixture(scope="module")
def tls(logs: Logs, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(logs(TLS), tmp_path_factory.mktemp("tls"))


class Accounting:
    """The accounting of a run. It must add up."""

    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text())
        self.spans: dict[str, int] = document["spans"]
        self.points: dict[str, int] = document["points"]
        self.loss: list[str] = document["loss"]
        ends = ("delivered", "spooled", "rejected")
        assert self.spans["finished"] == sum(self.spans[end] for end in (*ends, "not_kept"))
        assert self.points["made"] == sum(self.points[end] for end in ends)


def assert_all_came(receiver: Receiver, written: Written) -> None:
    got = received(receiver)
    assert spans_of(got) == written.spans
    assert points_of(got) == written.points


def assert_nothing_missing(receiver: Receiver, written: Written) -> None:
    """All came, and nothing else did; what was kept without an answer came again."""
    got = received(receiver)
    assert set(spans_of(got)) == set(written.spans)
    assert set(points_of(got)) == set(written.points)


# --- what is delivered ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", [PRECOPY, TLS, "qemu-10.2.0-log/multifd-tls", "debian-7.2/cancelled"])
def test_exactly_what_a_file_holds_is_delivered(
    recording: str, to: str, receiver: Receiver, logs: Logs, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    accounting = tmp_path / "accounting.json"
    done = call("convert", *logs(recording), "--to", to, "--to", f"file:{folder}", "--accounting", accounting)
    assert done.code == 0, done.err
    got = received(receiver)
    assert spans_of(got) == spans_of(lines((folder / "traces.jsonl").read_text()))
    assert points_of(got) == points_of(lines((folder / "metrics.jsonl").read_text()))
    account = Accounting(accounting)
    assert account.spans["delivered"] == spans_of(got).total() > 0
    assert account.points["delivered"] == points_of(got).total() > 0
    assert account.loss == []


def test_http_bodies_can_be_gzip(receiver: Receiver, logs: Logs, tls: Written) -> None:
    done = call("convert", *logs(TLS), "--to", receiver.http_url, env={f"{E}COMPRESSION": "gzip"})
    assert done.code == 0, done.err
    assert {headers["content-encoding"] for headers in receiver.headers} == {"gzip"}
    assert_all_came(receiver, tls)


def test_the_environment_alone_switches_delivery_on(receiver: Receiver, logs: Logs, tls: Written) -> None:
    env = {f"{E}ENDPOINT": receiver.http_url, f"{E}PROTOCOL": "http/protobuf", f"{E}HEADERS": "x-scope-orgid=migrations"}
    done = run("convert", *logs(TLS), env=env)
    assert (done.code, done.out) == (0, ""), done.err
    assert {headers["x-scope-orgid"] for headers in receiver.headers} == {"migrations"}
    assert_all_came(receiver, tls)


def test_the_environment_can_ask_for_grpc(receiver: Receiver, logs: Logs, tls: Written) -> None:
    address = receiver.grpc_url.replace("grpc://", "http://")
    env = {f"{E}ENDPOINT": address, f"{E}PROTOCOL": "grpc", f"{E}HEADERS": "x-scope-orgid=migrations"}
    done = call("convert", *logs(TLS), env=env)
    assert done.code == 0, done.err
    assert {headers["x-scope-orgid"] for headers in receiver.headers} == {"migrations"}
    assert_all_came(receiver, tls)


def test_a_destination_given_counts_alone(receiver: Receiver, logs: Logs, tmp_path: Path) -> None:
    done = call("convert", *logs(TLS), "--to", f"file:{tmp_path}", env={f"{E}ENDPOINT": receiver.http_url})
    assert done.code == 0, done.err
    assert receiver.attempts == []


def test_resource_attributes_of_the_environment_win(receiver: Receiver, logs: Logs) -> None:
    env = {
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=staging,service.name=from-list,log.file.name=a%2Cb",
        "OTEL_SERVICE_NAME": "vmhost",
    }
    assert call("convert", *logs(TLS), "--to", receiver.http_url, env=env).code == 0
    body = next(body for signal, body in receiver.requests if signal == "traces")
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        found = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        assert found["service.name"] == "vmhost"
        assert found["deployment.environment.name"] == "staging"
        assert found["log.file.name"] == "a,b"
        assert len(found["service.instance.id"]) == 32
        assert len(found) == len(resource.resource.attributes)


def test_the_sides_are_two_resources(receiver: Receiver, logs: Logs) -> None:
    assert call("convert", *logs(TLS), "--to", receiver.http_url).code == 0
    bodies = [body for signal, body in receiver.requests if signal == "traces"]
    resources = [resource.resource for body in bodies for resource in ExportTraceServiceRequest.FromString(body).resource_spans]
    names = {pair.value.string_value for found in resources for pair in found.attributes if pair.key == "log.file.name"}
    assert names == {"src.log", "dst.log"}


# --- receivers that misbehave -----------------------------------------------------------------------------

BUSY = Answer(status=429, retry_after="0", code=UNAVAILABLE.code, retry_info_s=0.05, message="slow down")
RESET = Answer(action="reset")
MISCHIEF: dict[str, list[Answer]] = {
    "429 with Retry-After": [BUSY, ACCEPTED, BUSY, BUSY],
    "503": [UNAVAILABLE, ACCEPTED, UNAVAILABLE, ACCEPTED, UNAVAILABLE],
    "connection resets": [RESET, ACCEPTED, RESET, RESET],
    "half an answer": [Answer(action="half"), ACCEPTED, Answer(action="half")],
    "everything": [RESET, BUSY, UNAVAILABLE, Answer(action="half"), ACCEPTED, BUSY, RESET, UNAVAILABLE],
}


@pytest.mark.parametrize("mischief", MISCHIEF)
@pytest.mark.usefixtures("many_requests")
def test_a_receiver_that_recovers_gets_everything(
    mischief: str, to: str, receiver: Receiver, logs: Logs, precopy: Written, tmp_path: Path
) -> None:
    receiver.script("traces", MISCHIEF[mischief])
    receiver.script("metrics", MISCHIEF[mischief])
    done = call("convert", *logs(PRECOPY), "--to", to, "--accounting", tmp_path / "accounting.json")
    assert done.code == 0, done.err
    if to.startswith("grpc") and any(answer.action != "answer" for answer in MISCHIEF[mischief]):
        # The requests of a gRPC connection are cut together; one that was kept comes again if its answer was lost.
        assert_nothing_missing(receiver, precopy)
    else:
        assert_all_came(receiver, precopy)
    account = Accounting(tmp_path / "accounting.json")
    assert account.spans["delivered"] == precopy.spans.total()
    assert account.points["delivered"] == precopy.points.total()
    assert account.loss == []


@pytest.mark.usefixtures("many_requests")
def test_a_partial_success_is_counted_and_never_sent_again(to: str, receiver: Receiver, logs: Logs, tmp_path: Path) -> None:
    receiver.script("traces", [ACCEPTED, Answer(rejected=3, message="span too old \x1b]0;gotcha\x07")])
    receiver.script("metrics", [Answer(rejected=2, message="out of order")])
    done = call("convert", *logs(PRECOPY), "--to", to, "--accounting", tmp_path / "accounting.json")
    assert done.code == 5
    account = Accounting(tmp_path / "accounting.json")
    assert (account.spans["rejected"], account.points["rejected"]) == (3, 2)
    assert len([loss for loss in account.loss if "span too old" in loss or "out of order" in loss]) == 2
    assert "3 spans were rejected" in done.err
    assert "out of order" in done.err
    assert "\x1b" not in done.err
    assert len(spans_of(received(receiver))) == spans_of(received(receiver)).total()


@pytest.mark.usefixtures("many_requests")
def test_a_refusal_costs_its_own_request_alone(
    to: str, receiver: Receiver, logs: Logs, precopy: Written, tmp_path: Path
) -> None:
    receiver.script("traces", [ACCEPTED, BAD])
    done = call("convert", *logs(PRECOPY), "--to", to, "--accounting", tmp_path / "accounting.json")
    assert done.code == 5
    account = Accounting(tmp_path / "accounting.json")
    assert account.spans["rejected"] == 20
    assert account.spans["delivered"] == precopy.spans.total() - 20 == spans_of(received(receiver)).total()
    assert any("no such tenant" in loss for loss in account.loss)
    assert "no such tenant" in done.err


@pytest.mark.usefixtures("many_requests")
def test_a_receiver_that_dies_half_way_and_comes_back(
    to: str, receiver: Receiver, logs: Logs, precopy: Written, tmp_path: Path
) -> None:
    """Nothing is lost; only what it took without answering may come twice."""
    arguments: list[str | Path] = ["convert", *logs(PRECOPY), "--accounting", tmp_path / "accounting.json"]
    with Relay(to, dies_after=40_000) as relay, ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, *arguments, "--to", relay.url)
        assert relay.died.wait(20)
        kept = len(receiver.requests)
        relay.up()
        done = running.result(30)
    assert done.code == 0, done.err
    assert 0 < kept < len(receiver.requests)
    assert_nothing_missing(receiver, precopy)
    account = Accounting(tmp_path / "accounting.json")
    assert account.spans["delivered"] == precopy.spans.total()
    assert account.points["delivered"] == precopy.points.total()


@pytest.mark.usefixtures("many_requests")
def test_one_that_never_answers_is_given_up(to: str, receiver: Receiver, logs: Logs, precopy: Written, tmp_path: Path) -> None:
    silence = [Answer(action="hang")] * 40
    receiver.script("traces", silence)
    receiver.script("metrics", silence)
    arguments: list[str | Path] = [
        "convert",
        *logs(PRECOPY),
        "--to",
        to,
        "--give-up",
        "1s",
        "--accounting",
        tmp_path / "accounting.json",
    ]
    done = call(*arguments, env={f"{E}TIMEOUT": "300"})
    assert done.code == 5
    account = Accounting(tmp_path / "accounting.json")
    assert account.spans["rejected"] == precopy.spans.total()
    assert account.points["rejected"] == precopy.points.total()
    assert account.loss
    assert f"{precopy.spans.total()} spans were rejected" in done.err


def test_nobody_listens(logs: Logs, tls: Written, tmp_path: Path) -> None:
    done = call("convert", *logs(TLS), "--to", nowhere(), "--give-up", "100ms", "--accounting", tmp_path / "accounting.json")
    assert done.code == 5
    assert Accounting(tmp_path / "accounting.json").spans["rejected"] == tls.spans.total()
    assert "refused" in done.err
    assert "Traceback" not in done.err


# --- the spool --------------------------------------------------------------------------------------------


def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://localhost:{listener.getsockname()[1]}"


def spooled(logs: Sequence[Path], to: str, spool: Path, accounting: Path) -> Result:
    arguments: list[str | Path] = [
        "convert",
        *logs,
        "--to",
        to,
        "--give-up",
        "100ms",
        "--spool",
        spool,
        "--accounting",
        accounting,
    ]
    return call(*arguments)


def shown(spool: Path) -> list[dict[str, Any]]:
    done = call("spool", "show", spool)
    assert done.code == 0, done.err
    return lines(done.out)


@pytest.mark.usefixtures("many_requests")
def test_what_is_spooled_is_replayed_once(to: str, receiver: Receiver, logs: Logs, precopy: Written, tmp_path: Path) -> None:
    spool, accounting = tmp_path / "spool", tmp_path / "accounting.json"
    with Relay(to) as relay:
        relay.down()
        done = spooled(logs(PRECOPY), relay.url, spool, accounting)
        assert done.code == 0, done.err
        assert f"{precopy.spans.total()} spans were spooled" in done.err
        account = Accounting(accounting)
        assert (account.spans["spooled"], account.points["spooled"]) == (precopy.spans.total(), precopy.points.total())
        assert account.loss == []

        assert call("spool", "verify", spool).code == 0
        assert spans_of(shown(spool)) == precopy.spans
        assert points_of(shown(spool)) == precopy.points

        still_away = call("spool", "replay", spool, "--give-up", "100ms")
        assert still_away.code == 5, still_away.err
        assert spans_of(shown(spool)) == precopy.spans

        relay.up()
        replayed = call("spool", "replay", spool)
        assert replayed.code == 0, replayed.err
        assert f"{precopy.spans.total()} spans delivered" in replayed.err
        assert_all_came(receiver, precopy)

        assert call("spool", "replay", spool).code == 0
        assert_all_came(receiver, precopy)
    assert shown(spool) == []
    assert "0 requests wait" in call("spool", "verify", spool).out


@pytest.mark.usefixtures("many_requests")
def test_a_receiver_that_stays_away_half_way_leaves_the_rest_in_the_spool(
    to: str, receiver: Receiver, logs: Logs, precopy: Written, tmp_path: Path
) -> None:
    spool, accounting = tmp_path / "spool", tmp_path / "accounting.json"
    with Relay(to, dies_after=40_000) as relay:
        done = spooled(logs(PRECOPY), relay.url, spool, accounting)
    assert done.code == 0, done.err
    account = Accounting(accounting)
    assert account.spans["delivered"] + account.spans["spooled"] == precopy.spans.total()
    assert account.points["delivered"] + account.points["spooled"] == precopy.points.total()
    assert account.spans["spooled"] + account.points["spooled"] > 0
    assert call("spool", "replay", spool, "--to", to).code == 0
    assert_nothing_missing(receiver, precopy)


@pytest.mark.usefixtures("many_requests")
def test_replay_goes_on_where_it_broke_off(receiver: Receiver, logs: Logs, precopy: Written, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    assert spooled(logs(PRECOPY), nowhere(), spool, tmp_path / "accounting.json").code == 0
    receiver.script("traces", [*[ACCEPTED] * 3, *[UNAVAILABLE] * 200])
    receiver.script("metrics", [])
    broken_off = call("spool", "replay", spool, "--to", receiver.http_url, "--give-up", "100ms")
    assert broken_off.code == 5
    left = Counter(spans_of(shown(spool)))
    assert 0 < left.total() < precopy.spans.total()
    assert left + spans_of(received(receiver)) == precopy.spans
    receiver.script("traces", [])
    assert call("spool", "replay", spool, "--to", receiver.http_url).code == 0
    assert_all_came(receiver, precopy)


def test_a_spool_can_be_thrown_away(logs: Logs, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    assert spooled(logs(TLS), nowhere(), spool, tmp_path / "accounting.json").code == 0
    unsure = run("spool", "drop", spool, stdin=b"n\n")
    assert unsure.code != 0
    assert shown(spool) != []
    assert call("spool", "drop", "--yes", spool).code == 0
    assert shown(spool) == []


@pytest.mark.parametrize("command", ["verify", "show", "replay", "drop"])
def test_a_folder_that_is_no_spool_is_said_so(command: str, tmp_path: Path) -> None:
    sure = ["--yes"] if command == "drop" else []
    done = call("spool", command, *sure, tmp_path / "nothing")
    assert done.code == 6
    assert str(tmp_path / "nothing") in done.err
    assert not (tmp_path / "nothing").exists()


def test_a_spool_that_cannot_be_made_stops_the_conversion(logs: Logs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = spooled(logs(TLS), nowhere(), tmp_path / "file", tmp_path / "accounting.json")
    assert done.code == 6
    assert str(tmp_path / "file") in done.err
