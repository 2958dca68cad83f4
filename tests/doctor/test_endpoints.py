"""What is said of destinations: each failure at a real receiver, with the way out of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from otelbridge.doctor import endpoints
from otelbridge.doctor.findings import Finding
from otelbridge.otlp.settings import Endpoint
from otelbridge.otlp.settings import endpoints as endpoints_of
from otelbridge.records import Signal
from tests.pki import Authority
from tests.receiver import Answer, Receiver, ServerTls


def said_of(address: str, ca: Path | None = None, only: Signal | None = None) -> list[Finding]:
    found: dict[Signal, Endpoint] = {
        signal: replace(endpoint, ca=ca) for signal, endpoint in endpoints_of(address, {}).items() if only in (None, signal)
    }
    return endpoints.endpoint_findings(endpoints.ask({"collector": found}))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(takes_empty=True) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("pki"), "authority")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_receiver_that_takes_both_signals_is_well(receiver: Receiver, protocol: str) -> None:
    (found,) = said_of(receiver.http_url if protocol == "http" else receiver.grpc_url)
    assert found.mark == "ok"
    assert found.text.startswith("'collector' takes traces and metrics: ")
    assert sorted(receiver.attempts) == ["metrics", "traces"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_port_of_the_other_protocol_is_named(receiver: Receiver, protocol: str) -> None:
    right, wrong = receiver.http_url, receiver.grpc_url.replace("grpc", "http")
    if protocol == "grpc":
        right, wrong = receiver.grpc_url, receiver.http_url.replace("http", "grpc")
    meant = wrong.replace("grpc", "http") if protocol == "grpc" else wrong.replace("http", "grpc")
    (found,) = said_of(wrong)
    assert found.mark == "problem"
    assert "no OTLP is spoken there in this way" in found.text
    assert found.help == f"write {meant}, where an OTLP receiver answers"
    assert meant != right


def test_the_standard_port_of_the_other_protocol_is_tried() -> None:
    http = endpoints_of("http://localhost:4318", {})["traces"]
    grpc_ = endpoints_of("grpc://localhost:4317", {})["metrics"]
    assert ("grpc://localhost:4317", "localhost:4317") in [(name, one.url) for name, one in endpoints.beside(http, "traces")]
    beside = [(name, one.url) for name, one in endpoints.beside(grpc_, "metrics")]
    assert ("http://localhost:4318", "http://localhost:4318/v1/metrics") in beside


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    ("case", "words", "help_"),
    [
        ("expired", "its certificate has expired", "renew it"),
        ("name", "its certificate is for another name", "a name that the certificate has"),
        ("stranger", "nothing here trusts its certificate", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said_in_words(
    authority: Authority, tmp_path: Path, protocol: str, case: str, words: str, help_: str
) -> None:
    pair = authority.issue(case, "example.org" if case == "name" else "localhost", is_expired=case == "expired")
    ca = Authority.make(tmp_path, "stranger").path if case == "stranger" else authority.path
    with Receiver(ServerTls(*pair)) as receiver:
        (found,) = said_of(receiver.http_url if protocol == "http" else receiver.grpc_url, ca)
    assert found.mark == "problem"
    assert words in found.text
    assert help_ in found.help


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tls_where_there_is_none_and_none_where_there_is(receiver: Receiver, authority: Authority, protocol: str) -> None:
    plain = receiver.http_url if protocol == "http" else receiver.grpc_url
    (found,) = said_of(plain.replace(protocol, f"{protocol}s"))
    assert (found.mark, found.help) == ("problem", f"write {plain}, where an OTLP receiver answers")
    with Receiver(ServerTls(*authority.issue("server", "localhost")), takes_empty=True) as secure:
        address = secure.http_url if protocol == "http" else secure.grpc_url
        (found,) = said_of(address.replace(f"{protocol}s", protocol), authority.path)
    assert (found.mark, found.help) == ("problem", f"write {address}, where an OTLP receiver answers")


def test_a_receiver_that_wants_a_client_certificate_is_told(authority: Authority) -> None:
    pair = authority.issue("server", "localhost")
    with Receiver(ServerTls(*pair, client_ca=authority.path), takes_empty=True) as receiver:
        (found,) = said_of(receiver.http_url, authority.path)
    assert found.mark == "problem"
    assert "tls: {cert: …, key: …}" in found.help


def test_a_wrong_path_is_told_as_one(receiver: Receiver) -> None:
    (found,) = said_of(f"{receiver.http_url}/otlp")
    receiver.faults.clear()
    assert found.mark == "problem"
    assert "it does not take traces and metrics at this path (HTTP 404 Not Found" in found.text
    assert "without v1/traces" in found.help


def test_a_destination_without_metrics_is_well_for_traces(receiver: Receiver) -> None:
    receiver.script("metrics", [Answer(status=404, code=grpc.StatusCode.UNIMPLEMENTED, message="unknown service")] * 2)
    for address in (receiver.http_url, receiver.grpc_url):
        well, problem = said_of(address)
        assert (well.mark, problem.mark) == ("ok", "problem")
        assert "'collector' takes traces: " in well.text
        assert ": it takes no metrics (" in problem.text
        assert "leave them out by 'signals'" in problem.help


@pytest.mark.parametrize(
    ("answer", "mark", "words", "help_"),
    [
        (Answer(status=401, message="no token"), "problem", "it wants to know who sends (HTTP 401", "headers"),
        (Answer(status=503, message="starting"), "warning", "it is there, but takes nothing now (HTTP 503", "outbox"),
        (Answer(status=400, message="bad tenant"), "problem", "it did not take an empty request (HTTP 400", "OTLP receiver"),
        (Answer(body=("text/html", b"<html>")), "problem", "it answers, but not as an OTLP receiver does", "OTLP receiver"),
        (Answer(status=301, headers=(("Location", "http://other/"),)), "problem", "it redirects", "the address that it names"),
    ],
)
def test_what_a_server_answers_is_told_with_the_way_out(
    receiver: Receiver, answer: Answer, mark: str, words: str, help_: str
) -> None:
    receiver.script("traces", [answer])
    (found,) = said_of(receiver.http_url, only="traces")
    assert found.mark == mark
    assert words in found.text
    assert help_ in found.help


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_nothing_that_listens_is_told(protocol: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        (found,) = said_of(f"{protocol}://localhost:{bound.getsockname()[1]}")
    assert found.mark == "problem"
    assert "nothing listens there" in found.text
    assert "4318 is OTLP over HTTP, 4317 over gRPC" in found.help


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_one_that_never_answers_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    monkeypatch.setattr(endpoints, "TIMEOUT_S", 0.5)
    began_s = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (found,) = said_of(f"{protocol}://localhost:{silent.getsockname()[1]}")
    assert time.monotonic() - began_s < 5
    assert "nothing answers there" in found.text


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_name_that_is_not_known_is_told(protocol: str) -> None:
    (found,) = said_of(f"{protocol}://collector.invalid:4318")
    assert found.mark == "problem"
    assert "its name is not known here" in found.text


def test_a_name_server_that_never_answers_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "LIMIT_S", 0.5)
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kinds: over.wait(30) and [])
    began_s = time.monotonic()
    try:
        (found,) = said_of("http://collector.example:4318")
    finally:
        over.set()
    assert time.monotonic() - began_s < 5
    assert "while its name was looked up" in found.text


def test_a_proxy_that_is_in_the_way_is_named(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", receiver.http_url)
    (found,) = said_of("http://collector.example:4318")
    receiver.faults.clear()
    assert found.mark == "problem"
    assert "it goes through the proxy of 'http_proxy'" in found.help
    monkeypatch.setenv("no_proxy", "collector.example")
    (found,) = said_of("http://collector.example:4318")
    assert "proxy" not in found.help


def test_what_is_secret_in_an_address_is_not_shown(receiver: Receiver) -> None:
    receiver.script("traces", [Answer(status=401)])
    found = said_of(receiver.http_url.replace("//", "//user:hunter2@"))
    assert "hunter2" not in str(found)
