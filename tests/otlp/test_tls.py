"""TLS and mutual TLS over gRPC and HTTP, with authorities and certificates made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.errors import UsageError
from otelbridge.otlp.delivery import Destination, sender_for
from otelbridge.otlp.retry import Accepted, Backoff, Retry, Verdict
from otelbridge.otlp.settings import endpoints
from otelbridge.records import Request
from tests.pki import Authority
from tests.receiver import Receiver, ServerTls

E = "OTEL_EXPORTER_OTLP_"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("pki"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("pki"), "stranger")


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Receiver]:
    with Receiver(ServerTls(*authority.issue("server", "localhost", "127.0.0.1"))) as receiver:
        yield receiver


@pytest.fixture
def mutual(authority: Authority) -> Iterator[Receiver]:
    """A receiver that asks for a client certificate."""
    with Receiver(ServerTls(*authority.issue("server", "localhost"), client_ca=authority.path)) as receiver:
        yield receiver


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def address(receiver: Receiver, protocol: str) -> str:
    return receiver.grpc_url if protocol == "grpc" else receiver.http_url


def request_of_one() -> Request:
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="tls", start_time_unix_nano=1, end_time_unix_nano=2)
    return Request("traces", message.SerializeToString(), 1)


def send(to: str, env: dict[str, str]) -> Verdict:
    sender = sender_for(endpoints(to, {E + "TIMEOUT": "3000", **env})["traces"])
    try:
        return sender.send(request_of_one())
    finally:
        sender.close()


@pytest.mark.parametrize("variable", ["CERTIFICATE", "TRACES_CERTIFICATE"])
def test_tls_with_an_authority_of_ones_own(receiver: Receiver, protocol: str, authority: Authority, variable: str) -> None:
    assert address(receiver, protocol).startswith(("grpcs://", "https://"))
    assert send(address(receiver, protocol), {E + variable: str(authority.path)}) == Accepted()
    assert receiver.requests == [("traces", request_of_one().body)]


def test_grpc_over_https_address(receiver: Receiver, authority: Authority) -> None:
    to = receiver.grpc_url.replace("grpcs://", "https://")
    assert send(to, {E + "PROTOCOL": "grpc", E + "CERTIFICATE": str(authority.path)}) == Accepted()


def test_grpc_address_without_scheme_means_tls(receiver: Receiver, authority: Authority) -> None:
    to = receiver.grpc_url.removeprefix("grpcs://")
    assert send(to, {E + "PROTOCOL": "grpc", E + "CERTIFICATE": str(authority.path)}) == Accepted()


def test_receiver_of_an_unknown_authority_gets_nothing(receiver: Receiver, protocol: str, stranger: Authority) -> None:
    for env in ({}, {E + "CERTIFICATE": str(stranger.path)}):
        verdict = send(address(receiver, protocol), env)
        assert isinstance(verdict, Retry)
        assert "certificate" in verdict.reason.lower()
    assert receiver.attempts == []


def test_receiver_under_another_name_gets_nothing(authority: Authority, protocol: str) -> None:
    with Receiver(ServerTls(*authority.issue("elsewhere", "elsewhere.example"))) as receiver:
        assert isinstance(send(address(receiver, protocol), {E + "CERTIFICATE": str(authority.path)}), Retry)
        assert receiver.attempts == []


def test_ca_bundle_for_requests_does_not_override_ours(
    receiver: Receiver, authority: Authority, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stranger.path))
    assert send(receiver.http_url, {E + "CERTIFICATE": str(authority.path)}) == Accepted()


def client_env(ca: Authority, client: tuple[Path, Path]) -> dict[str, str]:
    return {E + "CERTIFICATE": str(ca.path), E + "CLIENT_CERTIFICATE": str(client[0]), E + "CLIENT_KEY": str(client[1])}


def test_mutual_tls(mutual: Receiver, protocol: str, authority: Authority) -> None:
    assert send(address(mutual, protocol), client_env(authority, authority.issue("client"))) == Accepted()
    assert len(mutual.requests) == 1


def test_mutual_tls_needs_the_right_client(mutual: Receiver, protocol: str, authority: Authority, stranger: Authority) -> None:
    to = address(mutual, protocol)
    assert isinstance(send(to, {E + "CERTIFICATE": str(authority.path)}), Retry)
    assert isinstance(send(to, client_env(authority, stranger.issue("client"))), Retry)
    assert mutual.attempts == []


def test_key_of_another_certificate_is_found_at_once(authority: Authority) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(UsageError, match="CLIENT_KEY"):
        endpoints("https://localhost", client_env(authority, (one[0], other[1])))


def test_encrypted_key_is_refused_without_asking(authority: Authority) -> None:
    cert, key = authority.issue("locked")
    locked = serialization.load_pem_private_key(key.read_bytes(), None)
    cipher = serialization.BestAvailableEncryption(b"password")
    key.write_bytes(locked.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher))
    with pytest.raises(UsageError, match=r"CLIENT_KEY.*unencrypted"):
        endpoints("https://localhost", client_env(authority, (cert, key)))


def test_plain_sender_to_a_tls_receiver_is_given_up(receiver: Receiver, protocol: str) -> None:
    to = address(receiver, protocol).replace("grpcs://", "grpc://").replace("https://", "http://")
    endpoint = endpoints(to, {E + "TIMEOUT": "1000"})["traces"]
    backoff = Backoff(initial_s=0.01)
    destination = Destination("traces", endpoint, sender_for(endpoint), give_up_s=0.3, spool=None, backoff=backoff)
    destination.put(request_of_one())
    outcome = destination.close()
    assert (outcome.delivered, outcome.rejected) == (0, 1)
    assert "took nothing" in outcome.reasons[0]
