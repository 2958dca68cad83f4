"""The health server, asked over real connections by those who mean well and by others."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from otelbridge.errors import UsageError
from otelbridge.service.health import HEAD_LIMIT_BYTES, HEART_LIMIT_S, MAX_CONNECTIONS, REQUEST_LIMIT_S, HealthServer

PAGES = ("/healthz", "/readyz", "/status", "/metrics")


class Service:
    """What the server shows, as a test wants it."""

    now_s = 1_000.0
    unready: tuple[str, ...] = ()
    status: Mapping[str, Any] = {"inputs": [{"path": "/var/log/a\udcff.log", "lag_bytes": 3}]}
    metrics: Callable[[], bytes] | None = staticmethod(lambda: b"a_total 1\n")

    def start(self) -> HealthServer:
        return HealthServer("127.0.0.1", 0, lambda: self.status, lambda: self.unready, self.metrics, now_s=lambda: self.now_s)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def server(service: Service) -> Iterator[HealthServer]:
    with service.start() as started:
        yield started


def ask(server: HealthServer, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def say(server: HealthServer, data: bytes, *, ends: bool = False) -> bytes:
    """Everything that the server answers to some bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while received := connection.recv(65_536):
        answer += received
    return answer


def test_it_is_healthy_as_long_as_the_main_loop_beats(server: HealthServer, service: Service) -> None:
    service.now_s += HEART_LIMIT_S
    response, body = ask(server, "/healthz")
    assert (response.status, body) == (200, b"ok\n")
    service.now_s += 1
    response, body = ask(server, "/healthz")
    assert response.status == 503
    assert b"31 s" in body
    server.beat()
    assert ask(server, "/healthz")[0].status == 200


def test_it_is_ready_when_the_service_is(server: HealthServer, service: Service) -> None:
    assert ask(server, "/readyz")[0].status == 200
    service.unready = ("/var/log/libvirt/qemu: there is no such folder",)
    head, body = ask(server, "/readyz?verbose")
    assert head.status == 503
    assert b"there is no such folder" in body
    assert ask(server, "/healthz")[0].status == 200


def test_the_status_is_json_even_with_names_that_are_no_text(server: HealthServer, service: Service) -> None:
    response, body = ask(server, "/status")
    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(body) == service.status


def test_the_metrics_are_passed_on(server: HealthServer) -> None:
    response, body = ask(server, "/metrics")
    assert (response.status, body) == (200, b"a_total 1\n")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_without_the_prometheus_package_the_page_says_what_to_install(service: Service) -> None:
    service.metrics = None
    with service.start() as server:
        response, body = ask(server, "/metrics")
    assert response.status == 404
    assert b"pip install 'otelbridge[prometheus]'" in body


@pytest.mark.parametrize("path", PAGES)
def test_head_has_the_head_of_get(server: HealthServer, path: str) -> None:
    got, body = ask(server, path)
    response, nothing = ask(server, path, "HEAD")
    assert (response.status, response.headers["Content-Length"], nothing) == (got.status, str(len(body)), b"")


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_is_guarded_and_names_no_program(server: HealthServer, path: str) -> None:
    headers = ask(server, path)[0].headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Server" not in headers
    assert headers["Connection"] == "close"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_pages_can_only_be_read(server: HealthServer, method: str) -> None:
    response, _ = ask(server, "/status", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/healthz/", "/../etc/passwd", "/%2e%2e/etc/passwd", "/STATUS", "//status", "/<script>"])
def test_other_paths_are_not_found_and_the_pages_are_listed(server: HealthServer, path: str) -> None:
    response, body = ask(server, path)
    assert response.status == 404
    assert all(page.encode() in body for page in PAGES)
    assert b"script" not in body


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
        b"GET\r\n\r\n",
        b"GET /status\r\n\r\n",
        b"GET /status HTTP/2.0\r\n\r\n",
        b"GET  /status HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        bytes(range(256)) + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_told_so(server: HealthServer, data: bytes) -> None:
    assert say(server, data).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "data",
    [
        b"GET http://127.0.0.1/healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.0\n\n",
        b"\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\nGET /status HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_other_forms_of_a_request_are_answered_once(server: HealthServer, data: bytes) -> None:
    answer = say(server, data)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok\n")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_request_that_is_too_long_is_refused(server: HealthServer) -> None:
    assert say(server, b"GET /" + HEAD_LIMIT_BYTES * b"a").startswith(b"HTTP/1.1 414 ")
    header = b"GET /healthz HTTP/1.1\r\nX: " + 2 * HEAD_LIMIT_BYTES * b"a" + b"\r\n\r\n"
    assert say(server, header).startswith(b"HTTP/1.1 431 ")
    exact = b"GET /healthz HTTP/1.1\r\nX: "
    exact += (HEAD_LIMIT_BYTES - len(exact) - 4) * b"a" + b"\r\n\r\n"
    assert say(server, exact).startswith(b"HTTP/1.1 200 ")


def test_a_connection_that_says_nothing_is_no_fault(server: HealthServer, caplog: pytest.LogCaptureFixture) -> None:
    """As the probes do that only look whether a port is open."""
    assert say(server, b"", ends=True) == b""
    assert ask(server, "/healthz")[0].status == 200
    assert caplog.text == ""


def test_a_byte_now_and_then_does_not_hold_a_connection(server: HealthServer) -> None:
    """Slow-loris: the time is for the whole request."""
    began_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        answer = b""
        while not answer and time.monotonic() - began_s < 2 * REQUEST_LIMIT_S:
            connection.sendall(b"X")
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert REQUEST_LIMIT_S - 0.1 <= time.monotonic() - began_s < REQUEST_LIMIT_S + 2


def test_connections_at_once_are_bounded_and_free_again(server: HealthServer) -> None:
    address = ("127.0.0.1", server.port)
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(MAX_CONNECTIONS)]
        for connection in held:
            connection.sendall(b"GET /healthz")
        with socket.create_connection(address, timeout=10) as one_more:
            assert read_all(one_more).startswith(b"HTTP/1.1 503 ")
        for connection in held:
            connection.sendall(b" HTTP/1.1\r\n\r\n")
        assert all(read_all(connection).startswith(b"HTTP/1.1 200 ") for connection in held)
    deadline_s = time.monotonic() + 10
    while ask(server, "/healthz")[0].status != 200:
        assert time.monotonic() < deadline_s


def test_clients_that_leave_in_the_middle_do_not_use_it_up(server: HealthServer, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5 * MAX_CONNECTIONS):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b"GET /status HTTP/1.1\r\n\r\n")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    deadline_s = time.monotonic() + 10
    while True:
        try:
            if ask(server, "/healthz")[0].status == 200:
                break
        except ConnectionError:
            pass
        assert time.monotonic() < deadline_s
    assert caplog.text == ""


def test_a_page_that_cannot_be_made_is_told_in_the_log(
    server: HealthServer, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.status = {"lag_s": float("nan")}
    response, body = ask(server, "/status")
    assert response.status == 500
    assert b"Traceback" not in body
    assert "/status could not be made" in caplog.text
    assert ask(server, "/healthz")[0].status == 200


def test_an_address_in_use_is_told_in_words(server: HealthServer) -> None:
    with pytest.raises(UsageError, match=rf"'127\.0\.0\.1', port {server.port}: Address already in use"):
        HealthServer("127.0.0.1", server.port, dict, bool, None)
    with pytest.raises(UsageError, match=r"cannot listen on 'no\.such\.host\.invalid', port 1"):
        HealthServer("no.such.host.invalid", 1, dict, bool, None)


def test_it_ends_within_a_second_whoever_is_connected(service: Service) -> None:
    server = service.start()
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(3)]
    began_s = time.monotonic()
    server.close()
    assert time.monotonic() - began_s < 1
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", server.port), timeout=10)
    for connection in held:
        connection.close()


def test_a_status_that_takes_long_holds_up_nobody_else(server: HealthServer, service: Service) -> None:
    goes_on = threading.Event()

    class Slow(dict[str, Any]):
        def __bool__(self) -> bool:
            return goes_on.wait(10)

    service.status = Slow()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        assert ask(server, "/healthz")[0].status == 200
        goes_on.set()
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_without_file_descriptors_it_waits_in_peace_until_there_are_some() -> None:
    """The connection is not lost, and the processor is left to those who work."""
    code = """if True:
        import os, resource, time
        from otelbridge.service.health import HealthServer
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with HealthServer("127.0.0.1", 0, dict, lambda: (), None) as server:
            print(server.port, flush=True)
            next_one = os.dup(0)
            os.close(next_one)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, limits[1]))
            print("none left", flush=True)
            input()
            used_s = time.process_time()
            time.sleep(0.5)
            print(time.process_time() - used_s, flush=True)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            input()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        port = int(child.stdout.readline())
        assert child.stdout.readline() == "none left\n"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            child.stdin.write("\n")
            child.stdin.flush()
            assert float(child.stdout.readline()) < 0.1
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")
        child.stdin.write("\n")
    assert child.returncode == 0


def test_it_listens_on_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python knows no IPv6")
    try:
        server = HealthServer("::1", 0, dict, lambda: (), None)
    except UsageError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server, socket.create_connection(("::1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")
