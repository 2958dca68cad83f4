"""One attempt to send a request over OTLP/HTTP with protobuf.

Source: opentelemetry-proto, docs/specification.md, OTLP/HTTP (Response, Failures, Throttling).
"""

from __future__ import annotations

import gzip
import ipaddress
import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from urllib3.exceptions import HTTPError

from otelbridge import __version__
from otelbridge.otlp.responses import LIMIT_BYTES, read_json_response, read_response
from otelbridge.otlp.retry import Accepted, Rejected, Retry, TooLarge, Verdict
from otelbridge.otlp.settings import Endpoint
from otelbridge.records import Request, Signal

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_RETRYABLE = {429, 502, 503, 504}
_CHUNK_BYTES = 65536
_WORDS_LENGTH = 300


class HttpSender:
    """Posts to one URL; any thread may call `send`, each has a connection of its own.

    Args:
        endpoint: Where to and how.
        now: The time, against which a Retry-After that names a date is read.
    """

    def __init__(self, endpoint: Endpoint, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._endpoint = endpoint
        self._now = now
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def send(self, request: Request) -> Verdict:
        """Send once and say what came of it."""
        deadline_s = time.monotonic() + self._endpoint.timeout_s
        try:
            response = self._post(request.body)
        except (requests.ConnectionError, requests.Timeout) as error:
            return Retry(_connection_words(error))
        except requests.RequestException as error:
            return Rejected(f"no request could be made: {error}")
        except OSError as error:  # a TLS file that is gone
            return Retry(str(error))
        with response:
            try:
                answer = _read_bounded(response, deadline_s)
            except (HTTPError, OSError) as error:
                # An answer that is not whole acknowledges nothing.
                return Retry(f"the answer broke off: {_connection_words(error)}")
        return self._verdict(request.signal, response, answer)

    def close(self) -> None:
        """Give the connections back."""
        for session in self._sessions:
            session.close()

    def _post(self, body: bytes) -> requests.Response:
        headers = {"Content-Type": PROTOBUF, "Accept": PROTOBUF}
        if self._endpoint.gzip:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=6, mtime=0)
        return self._session().post(
            self._endpoint.url,
            data=body,
            headers=headers,
            timeout=None if math.isinf(self._endpoint.timeout_s) else self._endpoint.timeout_s,
            # Given here, since a REQUESTS_CA_BUNDLE of the environment would override that of the session.
            verify=str(self._endpoint.ca) if self._endpoint.ca else True,
            allow_redirects=False,
            stream=True,
        )

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = _new_session(self._endpoint)
            self._sessions.append(self._local.session)
        session: requests.Session = self._local.session
        return session

    def _verdict(self, signal: Signal, response: requests.Response, answer: bytes | None) -> Verdict:
        status = response.status_code
        if answer is None:
            return Rejected(f"HTTP {status} with an answer of over {LIMIT_BYTES} bytes (the request may have been taken)")
        content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if 200 <= status < 300:  # noqa: PLR2004 - the class of success
            return _accepted(signal, content_type, answer)
        words = _status_words(content_type, answer)
        reason = f"HTTP {status} {response.reason}" + (f": {words}" if words else "")
        if status in _RETRYABLE:
            return Retry(reason, retry_after_s(response.headers.get("Retry-After"), self._now()))
        if status == requests.codes.request_entity_too_large:
            return TooLarge(reason)
        if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
            place = _without_secrets(response.headers.get("Location", ""))
            return Rejected(
                f"HTTP {status} {response.reason}: it redirects to {place!r}, which is not followed; send there directly"
            )
        return Rejected(reason)


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date; None where it says nothing that can be read."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date without a zone is meant as GMT, the only one that HTTP allows.
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def _new_session(endpoint: Endpoint) -> requests.Session:
    session = requests.Session()
    session.headers.update({"User-Agent": f"otelbridge/{__version__}", **dict(endpoint.headers)})
    # Without an `auth` of its own a session would replace our Authorization header by what .netrc says.
    session.auth = _leave_as_is
    session.trust_env = not _is_loopback(endpoint.url)
    if endpoint.cert is not None and endpoint.key is not None:
        session.cert = (str(endpoint.cert), str(endpoint.key))
    return session


def _leave_as_is(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_bounded(response: requests.Response, deadline_s: float) -> bytes | None:
    """The body, or None if it is over the limit.

    Raises:
        HTTPError: The body broke off.
        TimeoutError: It was not complete by the deadline (of the monotonic clock), however steadily it trickles.
    """
    answer = bytearray()
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        answer += chunk
        if len(answer) > LIMIT_BYTES:
            return None
        if time.monotonic() > deadline_s:
            raise TimeoutError("it was not complete within the time-out")
    return bytes(answer)


def _accepted(signal: Signal, content_type: str, answer: bytes) -> Accepted:
    if not answer or content_type == PROTOBUF:
        return read_response(signal, answer)
    if content_type == JSON:
        return read_json_response(signal, answer)
    return Accepted(0, f"its answer of type {content_type or 'unknown'!r} is no OTLP response; is this an OTLP receiver?")


def _status_words(content_type: str, answer: bytes) -> str:
    """What the body of a failure says: the message of a google.rpc.Status, or its text if it is one."""
    words = ""
    try:
        if content_type == PROTOBUF:
            words = Status.FromString(answer).message
        elif content_type == JSON:
            words = json_format.Parse(answer, Status(), ignore_unknown_fields=True).message
    except (DecodeError, json_format.ParseError, UnicodeDecodeError):
        pass
    if not words and content_type.startswith(("text/plain", JSON)):
        words = answer[: 4 * _WORDS_LENGTH].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())[:_WORDS_LENGTH]


def _connection_words(error: Exception) -> str:
    """The innermost cause, since the outer ones only repeat it with the addresses of objects."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__


def _without_secrets(url: str) -> str:
    return urlsplit(url)._replace(query="", fragment="").geturl().rpartition("@")[2]
