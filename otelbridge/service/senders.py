"""The service's senders: threads for each destination and signal that empty the outbox, without an end to their patience.

Source: opentelemetry-proto, docs/specification.md (Failures, Throttling, Multi-Destination Exporting).
"""

from __future__ import annotations

import base64
import logging
import math
import os
import random
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, assert_never
from urllib.parse import parse_qsl, urlsplit

from otelbridge.errors import SpoolError, UsageError
from otelbridge.otlp.delivery import IN_FLIGHT, Sender, sender_for
from otelbridge.otlp.outbox import Kept
from otelbridge.otlp.requests import joined, split
from otelbridge.otlp.retry import Accepted, Backoff, Rejected, Retry, TooLarge, Verdict
from otelbridge.otlp.settings import Endpoint
from otelbridge.records import Request, Signal
from otelbridge.service.config import DestinationConfig
from otelbridge.service.outbox import Count, Route, ServiceOutbox

TLS_CHECK_S = 5.0
"""How often the files of certificates are looked at; after a failed attempt they are looked at too."""

_LONGEST_ATTEMPT_S = 300.0
_NAP_S = 3600.0  # a destination may ask for more than a lock can wait
# One that refuses now and then is overloaded: only one that took nothing for so long is met again at once when it is back.
_AWAY_S = 5.0
_TELL_AGAIN_S = 60.0
_SHORTEST_SECRET = 4
_ITEMS: dict[Signal, str] = {"traces": "spans", "metrics": "points"}
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SenderStatus:
    """What health shows of one signal's destination. Times are UTC.

    Attributes:
        destination: Its name.
        signal: What is sent.
        address: Where to, without secrets.
        state: `sending` while a request is under way, `waiting` for the next attempt after a failed one, else `idle`.
        error: What the last failed attempt said, or why its files cannot be used; empty after an accepted one.
        since_ns: Since when attempts fail; None where the last one did not.
        attempts: Requests sent, whatever came of it.
        accepted: Spans or points that it took.
        rejected: Spans or points that it refused.
        latency_s: How long the last accepted request took; None before the first.
    """

    destination: str
    signal: Signal
    address: str
    state: Literal["idle", "sending", "waiting"] = "idle"
    error: str = ""
    since_ns: int | None = None
    attempts: int = 0
    accepted: int = 0
    rejected: int = 0
    latency_s: float | None = None


class Senders:
    """Sends what is in the outbox to its destinations until it is accepted or refused. One never holds up another.

    Args:
        outbox: Where the requests are; each is for one of the destinations' names.
        destinations: Where they go.
        counters: Takes what is counted.
        backoff: How long to wait between attempts.
        tls_check_s: How often the files of certificates are looked at.
    """

    def __init__(
        self,
        outbox: ServiceOutbox,
        destinations: Sequence[DestinationConfig],
        counters: Count,
        *,
        backoff: Backoff | None = None,
        tls_check_s: float = TLS_CHECK_S,
    ) -> None:
        self._outbox, self._counters = outbox, counters
        self._backoff, self._tls_check_s = backoff or Backoff(), tls_check_s
        self._lanes: dict[Route, _Lane] = {}
        self._ended: list[_Lane] = []
        self._told: set[Route] = set()
        self.update(destinations)

    def update(self, destinations: Sequence[DestinationConfig]) -> None:
        """Send to these from now on. One that is the same goes on untouched; what is under way is not cut off."""
        wanted = {(where.name, signal): endpoint for where in destinations for signal, endpoint in where.endpoints.items()}
        kept = {route: lane for route, lane in self._lanes.items() if wanted.get(route) == lane.endpoint}
        old = {route: lane for route, lane in self._lanes.items() if route not in kept}
        for lane in old.values():
            lane.stop()
        self._outbox.wake()
        self._ended = [lane for lane in (*self._ended, *old.values()) if not lane.join(0)]
        # The points of a series must not overtake those that the old lane still sends.
        before = {lane.route: lane for lane in self._ended}
        self._lanes = {
            route: kept.get(route) or self._lane(route, endpoint, before.get(route)) for route, endpoint in wanted.items()
        }
        self._tell_unknown()

    def status(self) -> tuple[SenderStatus, ...]:
        """How each destination of each signal does."""
        return tuple(lane.status() for lane in self._lanes.values())

    def stop(self, deadline_s: float) -> bool:
        """Begin no more attempts and wait for those under way until the monotonic clock shows `deadline_s`.

        What is not answered by then stays in the outbox.

        Returns:
            Whether all were answered.
        """
        lanes = [*self._lanes.values(), *self._ended]
        for lane in lanes:
            lane.stop()
        self._outbox.wake()
        answered = [lane.join(deadline_s - time.monotonic()) for lane in lanes]
        return all(answered)

    def _lane(self, route: Route, endpoint: Endpoint, before: _Lane | None) -> _Lane:
        return _Lane(route, endpoint, self._outbox, self._counters, self._backoff, self._tls_check_s, before)

    def _tell_unknown(self) -> None:
        for route, amount in self._outbox.status().pending.items():
            if route not in self._lanes and route not in self._told:
                self._told.add(route)
                _log.warning(
                    "%d requests with %d %s wait for the destination %r, which is no longer configured. They stay "
                    "until `otelbridge spool replay --to WHERE` or `spool drop` while the service is stopped.",
                    amount.requests, amount.items, _ITEMS[route[1]], route[0],
                )  # fmt: skip


class _Lane:
    """One destination of one signal: its threads, and how they do."""

    def __init__(
        self, route: Route, endpoint: Endpoint, outbox: ServiceOutbox, counters: Count, backoff: Backoff, tls_check_s: float,
        before: _Lane | None,
    ) -> None:  # fmt: skip
        self.route, self.endpoint = route, endpoint
        self._name, self._signal = route
        self._outbox, self._counters, self._backoff = outbox, counters, backoff
        self._secrets, self._tls_check_s = secrets_of(endpoint), tls_check_s
        self._tls = _TlsSender(endpoint, tls_check_s, self._name)
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._status = SenderStatus(self._name, self._signal, endpoint.name)
        self._sending = self._waiting = 0
        self._not_before_s, self._returns = 0.0, 0
        self._told_s = self._refusal_told_s = -_TELL_AGAIN_S
        self._refusals_untold = 0
        self._at_work = IN_FLIGHT[self._signal]
        for number in range(self._at_work):
            # Daemons: a process that is told to end does not wait for a destination that hangs.
            threading.Thread(
                target=self._run, args=(before,), name=f"{self._name}-{self._signal}-{number}", daemon=True
            ).start()  # fmt: skip

    def stop(self) -> None:
        """Begin no more attempts."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the attempts under way; whether there are none any more."""
        # Not Thread.join: interrupted once, it takes the thread for ended (CPython 3.11, bpo-45274).
        with self._changed:
            return self._changed.wait_for(lambda: self._at_work == 0, max(0.0, timeout_s))

    def status(self) -> SenderStatus:
        with self._changed:
            is_failing = self._status.since_ns is not None
            state: Literal["idle", "sending", "waiting"] = (
                "sending" if self._sending else "waiting" if self._waiting or is_failing else "idle"
            )
            return replace(self._status, state=state, error=self._status.error or self._tls.problem)

    # --- the threads ------------------------------------------------------------------------------------

    def _run(self, before: _Lane | None) -> None:
        while before is not None and not self._stopped.is_set() and not before.join(1.0):
            pass
        while not self._stopped.is_set():
            kept = self._outbox.next(self._name, self._signal, stop=self._stopped, timeout_s=self._tls_check_s)
            if kept is None:
                self._tls.look()
                continue
            try:
                self._settle(kept)
            except Exception as error:  # noqa: BLE001 - one request must not end the thread
                _log.exception("%s: request %d could not be handled; it is kept apart.", self._name, kept.id)
                self._outbox.reject(kept.id, self._clean(f"a bug in otelbridge: {type(error).__name__}: {error}"))
                self._count(f"{_ITEMS[self._signal]}_rejected", kept.request.items, reason="bug")
        with self._changed:
            self._at_work -= 1
            is_last = not self._at_work
            self._changed.notify_all()
        if is_last:
            self._tls.close()

    def _settle(self, kept: Kept) -> None:
        """Send a request, in halves where it is too large; what is settled is taken out of the outbox piece by piece."""
        pieces = [kept.request]
        while pieces:
            piece = pieces.pop()
            verdict = self._attempts(piece)
            if verdict is None:
                self._outbox.give_back(kept.id)
                return
            if isinstance(verdict, TooLarge):
                halves = _halves(piece, verdict)
                if not isinstance(halves, Rejected):
                    self._count("requests_split", 1)
                    # The first half comes next, the second after it.
                    pieces += reversed(halves)
                    continue
                self._refuse(kept.id, piece, halves.reason, "too_large", rest=joined(pieces))
            elif isinstance(verdict, Rejected):
                self._refuse(kept.id, piece, verdict.reason, "refused", rest=joined(pieces))
            else:
                self._accept(kept.id, piece, verdict, joined(pieces))

    def _attempts(self, request: Request) -> Accepted | TooLarge | Rejected | None:
        """Try until there is an answer that settles the request; None when the lane is stopped."""
        failures = 0
        while self._may_send():
            verdict = self._send(request)
            match verdict:
                case Retry():
                    failures += 1
                    self._failed(verdict)
                    wait_s = self._backoff.wait_s(failures, random.random(), verdict.after_s)  # noqa: S311 - jitter
                    self._wait(wait_s, is_hurried=True)
                case Accepted() | TooLarge() | Rejected():
                    self._answered()
                    return verdict
                case _:
                    assert_never(verdict)
        return None

    def _may_send(self) -> bool:
        """Wait as long as the destination asked all senders to. False if the lane is stopped."""
        while (wait_s := self._not_before_s - time.monotonic()) > 0 and not self._stopped.is_set():
            self._wait(wait_s, is_hurried=False)
        return not self._stopped.is_set()

    def _wait(self, wait_s: float, *, is_hurried: bool) -> None:
        """Wait; one that is hurried ends when the destination answers another request after it was away."""
        with self._changed:
            returns = self._returns
            self._waiting += 1
            self._changed.wait_for(
                lambda: self._stopped.is_set() or (is_hurried and self._returns != returns), min(wait_s, _NAP_S)
            )
            self._waiting -= 1

    def _send(self, request: Request) -> Verdict:
        with self._changed:
            self._status.attempts += 1
            self._sending += 1
        self._count("requests_sent", 1)
        begin_s = time.monotonic()
        try:
            with self._tls.sender() as sender:
                verdict: Verdict = Retry(self._tls.problem) if sender is None else sender.send(request)
        finally:
            took_s = time.monotonic() - begin_s
            with self._changed:
                self._sending -= 1
        self._count("latency", took_s)
        if isinstance(verdict, Accepted):
            with self._changed:
                self._status.latency_s = took_s
        return verdict

    # --- what came of it --------------------------------------------------------------------------------

    def _failed(self, verdict: Retry) -> None:
        words = self._clean(verdict.reason)
        self._count("requests_retried", 1)
        now_s = time.monotonic()
        with self._changed:
            if verdict.after_s is not None:
                self._not_before_s = max(self._not_before_s, now_s + verdict.after_s)
            is_new = self._status.since_ns is None
            if is_new:
                self._status.since_ns = time.time_ns()
            is_due = is_new or (words != self._status.error and now_s - self._told_s >= _TELL_AGAIN_S)
            self._status.error = words
            if is_due:
                self._told_s = now_s
        if is_due:
            _log.warning(
                "%s does not take %s; trying again until it does, the outbox keeps them. reason=%r address=%s",
                self._name, self._signal, words, self.endpoint.name,
            )  # fmt: skip
        self._tls.look(is_failing=True)

    def _answered(self) -> None:
        with self._changed:
            since_ns, self._status.since_ns, self._status.error = self._status.since_ns, None, ""
            away_s = 0.0 if since_ns is None else (time.time_ns() - since_ns) / 1e9
            if away_s >= _AWAY_S:
                self._returns += 1
                self._changed.notify_all()
        if since_ns is not None:
            _log.warning("%s answers for %s again. away_s=%.1f", self._name, self._signal, away_s)

    def _accept(self, number: int, piece: Request, verdict: Accepted, rest: Request | None) -> None:
        # First of all: until it is removed, a crash would send it once more.
        if rest is None:
            self._outbox.settle(number)
        else:
            self._outbox.keep_rest(number, rest)
        # A count beyond the request's own items would break the account of the others.
        refused = min(max(verdict.rejected_items, 0), piece.items)
        with self._changed:
            self._status.accepted += piece.items - refused
            self._status.rejected += refused
        self._count(f"{_ITEMS[self._signal]}_delivered", piece.items - refused)
        if refused:
            self._count(f"{_ITEMS[self._signal]}_rejected", refused, reason="partial_success")
        if refused or verdict.message:
            words = f"refused {refused} of {piece.items} {_ITEMS[self._signal]}" if refused else "took the data with a warning"
            self._tell_refused(f"{words}: {self._clean(verdict.message)}")

    def _refuse(self, number: int, piece: Request, reason: str, kind: str, *, rest: Request | None = None) -> None:
        words = self._clean(reason)
        self._outbox.keep_rest(number, rest, (piece, words))
        with self._changed:
            self._status.rejected += piece.items
        self._count(f"{_ITEMS[self._signal]}_rejected", piece.items, reason=kind)
        self._tell_refused(f"refused a request of {piece.items} {_ITEMS[self._signal]}, which is kept apart: {words}")

    def _tell_refused(self, words: str) -> None:
        """Log what was refused, once in a while where it goes on."""
        now_s = time.monotonic()
        with self._changed:
            self._refusals_untold += 1
            if now_s - self._refusal_told_s < _TELL_AGAIN_S:
                return
            self._refusal_told_s, times, self._refusals_untold = now_s, self._refusals_untold, 0
        _log.warning("%s %s. times=%d", self._name, words, times)

    def _count(self, what: str, number: float, **attributes: str) -> None:
        if number:
            own = {"destination": self._name, "signal": str(self._signal)}
            self._counters(f"otelbridge.export.{what}", number, {**own, **attributes})

    def _clean(self, words: str) -> str:
        """The words without what is secret: a server or a library may repeat what it was given."""
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words


def _halves(piece: Request, verdict: TooLarge) -> tuple[Request, Request] | Rejected:
    try:
        return split(piece) or Rejected(f"a single item is too large for it: {verdict.reason}")
    except SpoolError as error:
        return Rejected(f"{verdict.reason}; it cannot be halved: {error}")


def secrets_of(endpoint: Endpoint) -> tuple[str, ...]:
    """What must stand in no message, the longest first: values of headers with and without `Bearer`, password, query."""
    query = urlsplit(endpoint.url).query
    values = [value for _, value in endpoint.headers] + [query, *(value for _, value in parse_qsl(query))]
    parts = {part for value in values for part in (value, value.partition(" ")[2], _password(value))}
    return tuple(sorted((part for part in parts if len(part) >= _SHORTEST_SECRET), key=len, reverse=True))


def _password(value: str) -> str:
    """The password in `Basic` and what user and password come to, empty where it is something else.

    Source: RFC 7617.
    """
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials).decode().partition(":")[2]
    except ValueError:
        return ""


# --- certificates -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Made:
    """A sender with the copies of files that it reads, and how many attempts use it."""

    sender: Sender
    files: tuple[int, ...]
    users: int = 0

    def close(self) -> None:
        self.sender.close()
        for handle in self.files:
            os.close(handle)


class _TlsSender:
    """The sender of an endpoint, made anew when its files of certificates change.

    `problem` says why what the files hold now is not used; the sender that was made before goes on then.
    """

    def __init__(self, endpoint: Endpoint, check_s: float, name: str) -> None:
        longest = _LONGEST_ATTEMPT_S if math.isinf(endpoint.timeout_s) else endpoint.timeout_s
        self._endpoint, self._check_s, self._name = replace(endpoint, timeout_s=longest), check_s, name
        self._lock = threading.Lock()
        self._paths = [path for path in (endpoint.ca, endpoint.cert, endpoint.key) if path is not None]
        self._seen: list[object] | None = None
        self._looked_s = -math.inf
        self._made: _Made | None = None
        self.problem = ""
        self.look()

    @contextmanager
    def sender(self) -> Iterator[Sender | None]:
        """The sender for one attempt; None where none could be made yet."""
        self.look()
        with self._lock:
            made = self._made
            if made is not None:
                made.users += 1
        try:
            yield None if made is None else made.sender
        finally:
            with self._lock:
                if made is not None:
                    made.users -= 1
                    if made is not self._made and not made.users:
                        made.close()

    def look(self, *, is_failing: bool = False) -> None:
        """Make the sender anew if its files changed; not more often than they are to be checked, or at once while it fails."""
        with self._lock:
            now_s = time.monotonic()
            if self._made is not None and (not self._paths or (not is_failing and now_s - self._looked_s < self._check_s)):
                return
            self._looked_s = now_s
            found = [_fingerprint(path) for path in self._paths]
            if found == self._seen:
                return
            before, self._seen = self._made, found
            try:
                self._made = _make(self._endpoint)
            except (UsageError, OSError) as error:
                self._tell(error)
                return
            self.problem = ""
            if before is not None:
                _log.info("%s: the certificates changed; new connections use them.", self._name)
                if not before.users:
                    before.close()

    def close(self) -> None:
        """Give the connections back."""
        with self._lock:
            made, self._made = self._made, None
            if made is not None and not made.users:
                made.close()

    def _tell(self, error: Exception) -> None:
        files = ", ".join(map(str, self._paths))
        goes_on = "the ones read before stay in use" if self._made else "nothing is sent until they can"
        self.problem = f"the certificates in {files} cannot be used ({error}); {goes_on}"
        _log.error("%s: %s.", self._name, self.problem)


def _fingerprint(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _make(endpoint: Endpoint) -> _Made:
    """A sender with its own copies of the files, so that what is written into them later does not reach it half-way.

    Raises:
        OSError: A file cannot be read, or is no certificate or key (ssl.SSLError).
        UsageError: As `sender_for`.
    """
    files: list[int] = []
    try:
        pinned = replace(
            endpoint, ca=_copy(endpoint.ca, files), cert=_copy(endpoint.cert, files), key=_copy(endpoint.key, files)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if pinned.ca is not None:
            context.load_verify_locations(pinned.ca)
        if pinned.cert is not None and pinned.key is not None:
            context.load_cert_chain(pinned.cert, pinned.key, password="")
        return _Made(sender_for(pinned), tuple(files))
    except BaseException:
        for handle in files:
            os.close(handle)
        raise


def _copy(path: Path | None, files: list[int]) -> Path | None:
    """A copy of a file in memory, under the path that the process knows it by; its handle is added to `files`."""
    if path is None:
        return None
    content = path.read_bytes()
    handle = os.memfd_create(path.name, os.MFD_CLOEXEC)
    files.append(handle)
    with open(handle, "wb", closefd=False) as copy:
        copy.write(content)
    return Path(f"/proc/self/fd/{handle}")
