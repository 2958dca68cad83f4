"""The health server: a few pages over HTTP, for probes, for Prometheus and for people.

Whoever can reach it can ask and nothing more: a request is bounded in size and time, and so is the number of connections.

Source: RFC 9110 (methods, status codes) and RFC 9112 (the form of messages).
"""

from __future__ import annotations

import errno
import json
import logging
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from otelbridge.errors import UsageError

HEART_LIMIT_S = 30.0
"""A main loop that has not beaten for so long hangs."""

REQUEST_LIMIT_S = 5.0
"""For all of a request and its answer, however it comes in."""

HEAD_LIMIT_BYTES = 8_192
MAX_CONNECTIONS = 8

_POLL_S = 1.0
_ACCEPT_PAUSE_S = 0.1
_REFUSE_LIMIT_S = 0.05
_DRAIN_LIMIT_S = 0.5
_DRAIN_LIMIT_BYTES = 65_536
_PLAIN, _JSON = "text/plain; charset=utf-8", "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_NO_PROMETHEUS = (
    "The Prometheus page needs the package opentelemetry-exporter-prometheus, which is not installed here: "
    "pip install 'otelbridge[prometheus]'"
)
_GUARDS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
# GET /status HTTP/1.1
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.[0-9]")
_log = logging.getLogger(__name__)


class _Reply(NamedTuple):
    """An answer without its head. `has_body` is false for one that shows the head alone."""

    status: HTTPStatus
    body: bytes
    content_type: str = _PLAIN
    headers: tuple[tuple[str, str], ...] = ()
    has_body: bool = True


class HealthServer:
    """Listens from the beginning until `close`, in threads of its own.

    Pages: `/healthz` (200, or 503 where `beat` was not called for 30 s), `/readyz` (200 or 503), `/status` and `/metrics`.

    Args:
        host: The name or number of the interface.
        port: 0 takes a free one; `port` tells which.
        status: What `/status` shows, as JSON data. It is called from other threads, as are the next two.
        unready: Why inputs are not followed, or why what comes of them is not taken, in words; nothing where all is well.
        metrics: The Prometheus page; None where nothing can make one.
        now_s: A clock that never goes back, by which the heart is judged.

    Raises:
        UsageError: The address cannot be listened on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        status: Callable[[], Mapping[str, Any]],
        unready: Callable[[], Sequence[str]],
        metrics: Callable[[], bytes] | None,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status, self._unready, self._metrics, self._now_s = status, unready, metrics, now_s
        self._pages: Mapping[str, Callable[[], _Reply]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/status": self._status_page,
            "/metrics": self._metrics_page,
        }
        self._beaten_s = now_s()
        self._server = _listen(host, port, self._answer)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="health", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def beat(self) -> None:
        """Say that the main loop goes on."""
        self._beaten_s = self._now_s()

    def close(self) -> None:
        """Listen no more, within a second; answers that are under way do not hold it up."""
        # Wakes the thread that waits for connections.
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, head: bytes) -> _Reply:
        """The answer to the head of a request, whatever it is."""
        match = _REQUEST_LINE.fullmatch(head.decode("latin-1").lstrip("\r\n").partition("\n")[0].rstrip("\r"))
        path = "" if match is None else _path(match[2])
        if match is None or not path:
            return _text(HTTPStatus.BAD_REQUEST, "This is no request of HTTP/1.1.")
        page = self._pages.get(path)
        if page is None:
            reply = _text(HTTPStatus.NOT_FOUND, f"There is no such page. The pages are {', '.join(self._pages)}.")
        elif match[1] not in ("GET", "HEAD"):
            reply = _text(HTTPStatus.METHOD_NOT_ALLOWED, "Pages can be read with GET and HEAD, nothing else.")
            reply = reply._replace(headers=(("Allow", "GET, HEAD"),))
        else:
            reply = _made(page, path)
        return reply._replace(has_body=match[1] != "HEAD")

    def _healthz(self) -> _Reply:
        silent_s = self._now_s() - self._beaten_s
        if silent_s > HEART_LIMIT_S:
            return _text(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The main loop has not moved for {silent_s:.0f} s, {HEART_LIMIT_S:.0f} s are allowed: "
                "it hangs, or waits for a disk.",
            )
        return _text(HTTPStatus.OK, "ok")

    def _readyz(self) -> _Reply:
        if reasons := self._unready():
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(["Not ready; /status tells more.", *reasons]))
        return _text(HTTPStatus.OK, "ready")

    def _status_page(self) -> _Reply:
        body = json.dumps(self._status(), indent=2, allow_nan=False) + "\n"
        return _Reply(HTTPStatus.OK, body.encode(), _JSON)

    def _metrics_page(self) -> _Reply:
        if self._metrics is None:
            return _text(HTTPStatus.NOT_FOUND, _NO_PROMETHEUS)
        return _Reply(HTTPStatus.OK, self._metrics(), _PROMETHEUS)


def _made(page: Callable[[], _Reply], path: str) -> _Reply:
    try:
        return page()
    except Exception:  # noqa: BLE001 - what a page is made of is not ours
        _log.exception("The page %s could not be made; the service goes on without.", path)
        return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "The page could not be made; the service's log tells why.")


def _path(target: str) -> str:
    """The path of `/status?pretty` and of `http://host/status`, empty where there is none."""
    if target.startswith("/"):
        return target.partition("?")[0]
    try:
        return urlsplit(target).path
    except ValueError:
        return ""


def _text(status: HTTPStatus, text: str) -> _Reply:
    return _Reply(status, f"{text}\n".encode())


def _encoded(reply: _Reply) -> bytes:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", reply.content_type),
        ("Content-Length", str(len(reply.body))),
        ("Connection", "close"),
        *_GUARDS,
        *reply.headers,
    ]
    lines = [f"HTTP/1.1 {reply.status.value} {reply.status.phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (reply.body if reply.has_body else b"")


# --- connections ------------------------------------------------------------------------------------


def _listen(host: str, port: int, answer: Callable[[bytes], _Reply]) -> _Server:
    """A server on the first address of the host.

    Raises:
        UsageError: There is none, or it cannot be listened on.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _Server(family, address, answer)
    except OSError as error:
        raise UsageError(
            f"health: cannot listen on {host!r}, port {port}: {error.strerror or error}; nothing was started. "
            "Name an address of this host and a port that no other program uses, or port 0 for a free one."
        ) from error


class _Server(socketserver.ThreadingTCPServer):
    """Takes connections, a thread for each of at most MAX_CONNECTIONS, one request on each."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, family: int, address: Any, answer: Callable[[bytes], _Reply]) -> None:  # noqa: ANN401 - of any family
        self.address_family = family
        self._answer = answer
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, socketserver.BaseRequestHandler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # It would be tried again at once, and go round and round.
                time.sleep(_ACCEPT_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """Answer in a thread, or refuse where there are too many."""
        if not self._free.acquire(blocking=False):
            request.settimeout(_REFUSE_LIMIT_S)
            with suppress(OSError):
                request.sendall(_encoded(_text(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections at once; try again.")))
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """All of a connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 - as in the base class
        """Read one request and answer it."""
        deadline_s = time.monotonic() + REQUEST_LIMIT_S
        # A client that leaves has what it wants.
        with suppress(OSError):
            reply = self._reply(request, deadline_s)
            if reply is not None:
                request.settimeout(max(_REFUSE_LIMIT_S, deadline_s - time.monotonic()))
                request.sendall(_encoded(reply))
                request.shutdown(socket.SHUT_WR)
                _drain(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 - as in the base class
        """Tell in the log what the base class would print."""
        _log.exception("A connection to the health server was not served; the service goes on.")

    def _reply(self, connection: socket.socket, deadline_s: float) -> _Reply | None:
        try:
            head = _read_head(connection, deadline_s)
        except TimeoutError:
            return _text(HTTPStatus.REQUEST_TIMEOUT, f"The request did not come within {REQUEST_LIMIT_S:.0f} s.")
        if len(head) < HEAD_LIMIT_BYTES or _has_end(head):
            return self._answer(head) if head else None
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if b"\n" in head else HTTPStatus.REQUEST_URI_TOO_LONG
        return _text(status, f"A request may have {HEAD_LIMIT_BYTES} bytes.")


def _read_head(connection: socket.socket, deadline_s: float) -> bytes:
    """What comes up to the end of the headers, or up to HEAD_LIMIT_BYTES, or until the client sends no more.

    Raises:
        TimeoutError: It did not come in time, all of it: a byte now and then does not help.
    """
    head = b""
    while len(head) < HEAD_LIMIT_BYTES and not _has_end(head):
        connection.settimeout(_left_s(deadline_s))
        received = connection.recv(HEAD_LIMIT_BYTES - len(head))
        if not received:
            break
        head += received
    return head


def _has_end(head: bytes) -> bool:
    return b"\r\n\r\n" in head or b"\n\n" in head


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _drain(connection: socket.socket) -> None:
    """Read on for a moment: to close with something unread would reset the connection, and the answer be lost."""
    deadline_s = time.monotonic() + _DRAIN_LIMIT_S
    left_bytes = _DRAIN_LIMIT_BYTES
    while left_bytes > 0:
        connection.settimeout(_left_s(deadline_s))
        received = connection.recv(left_bytes)
        if not received:
            return
        left_bytes -= len(received)
