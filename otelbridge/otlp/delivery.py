"""Delivery over the network: a queue per destination, retries, giving up, and an exact account of what became of every item.

Source: opentelemetry-proto, docs/specification.md (Failures, Throttling, Multi-Destination Exporting).
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, assert_never

from otelbridge.errors import SpoolError
from otelbridge.otlp.grpc_sender import GrpcSender
from otelbridge.otlp.http_sender import HttpSender
from otelbridge.otlp.outbox import Outbox
from otelbridge.otlp.requests import RequestBuilder, split
from otelbridge.otlp.retry import Accepted, Backoff, Rejected, Retry, TooLarge, Verdict
from otelbridge.otlp.settings import DEFAULT_TIMEOUT_S, Endpoint, endpoints
from otelbridge.records import FinishedSpan, MetricPoint, Outcome, Request, Resource, Signal

QUEUE_REQUESTS = 64
"""Requests that wait for one destination before whoever hands in more has to wait too."""

IN_FLIGHT: Mapping[Signal, int] = {"traces": 4, "metrics": 1}
"""Requests under way at once. The points of a series must arrive in the order of their times, so metrics go one by one."""

_REASONS = 20
_ABANDON_S = 5.0
_DEAF_S = 0.5  # an interrupt that comes right before a wait does not end it
_NAP_S = 3600.0  # a destination may ask for more than a lock can wait
_NOUNS: Mapping[Signal, tuple[str, str]] = {"traces": ("span", "spans"), "metrics": ("data point", "data points")}
_log = logging.getLogger(__name__)


class Sender(Protocol):
    """One attempt at a time, from any thread."""

    def send(self, request: Request) -> Verdict:
        """Send once and say what came of it."""

    def close(self) -> None:
        """Give the connections back."""


@dataclass(slots=True)
class _Account:
    """What became of the items so far, and why any were rejected."""

    signal: Signal
    delivered: int = 0
    spooled: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def reject(self, items: int, reason: str) -> None:
        self.rejected += items
        known = reason in self.reasons or len(self.reasons) < _REASONS
        self.reasons[reason if known else "other reasons"] += items

    def outcome(self) -> Outcome:
        reasons = tuple(f"{reason} ({_items(self.signal, items)})" for reason, items in self.reasons.items())
        return Outcome(self.delivered, self.spooled, self.rejected, reasons)


class Destination:
    """The queue of one signal's destination and the threads that empty it.

    Any thread may hand requests in. Everything that was handed in is delivered, spooled or rejected by the end of `close`.

    Args:
        signal: What is sent here.
        endpoint: Where to; its name stands in messages and in the outbox.
        sender: Makes the attempts.
        give_up_s: How long to go on while the destination takes nothing; an accepted request starts it anew.
        spool: Where requests go that could not be delivered, and those that were refused.
        backoff: How long to wait between attempts.
    """

    def __init__(
        self, signal: Signal, endpoint: Endpoint, sender: Sender, *, give_up_s: float, spool: Outbox | None, backoff: Backoff
    ) -> None:
        self._name, self._sender, self._spool, self._backoff = endpoint.name, sender, spool, backoff
        self._give_up_s = give_up_s
        self._account = _Account(signal)
        self._queue: deque[Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._accepted_s = self._not_before_s = time.monotonic()
        self._given_up = threading.Event()
        self._why_given_up = ""
        self._told: set[str] = set()
        self._at_work = IN_FLIGHT[signal]
        for number in range(self._at_work):
            # Daemons: a process that is told to end does not wait for a destination that hangs.
            threading.Thread(target=self._run, name=f"otlp-{signal}-{number}", daemon=True).start()

    def put(self, request: Request) -> None:
        """Hand in a request; waits while the queue is full."""
        with self._changed:
            while len(self._queue) >= QUEUE_REQUESTS:
                self._changed.wait(_DEAF_S)
            self._queue.append(request)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that no more requests come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> Outcome:
        """Wait until everything is settled and say what became of it."""
        self.finish()
        self.join()
        self._sender.close()
        return self._account.outcome()

    def join(self, deadline_s: float = math.inf) -> None:
        """Wait until everything is settled or the monotonic clock shows `deadline_s`."""
        # Not Thread.join: interrupted once, it takes the thread for ended (CPython 3.11, bpo-45274).
        with self._changed:
            while self._at_work and (left_s := deadline_s - time.monotonic()) > 0:
                self._changed.wait(min(left_s, _DEAF_S))

    def give_up(self, reason: str) -> None:
        """Try no more: what is left and what still comes goes to the spool, or is rejected with this reason."""
        with self._changed:
            if self._given_up.is_set():
                return
            self._why_given_up = reason
            self._given_up.set()
        fate = "is rejected; --spool DIR would keep it" if self._spool is None else "goes to the spool"
        self._tell(f"{reason}; what is left for it {fate}")

    def _run(self) -> None:
        while (request := self._next()) is not None:
            pieces = [request]
            while pieces:
                piece = pieces.pop()
                try:
                    # The halves of what was too large, in their order.
                    pieces += reversed(self._settle(piece))
                except Exception as error:  # noqa: BLE001 - it must neither end the thread nor lose the account
                    _log.exception("%s: a request could not be handled", self._name)
                    self._reject(piece, f"a bug in otelbridge: {type(error).__name__}: {error}")
        with self._changed:
            self._at_work -= 1
            self._changed.notify_all()

    def _next(self) -> Request | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            request = self._queue.popleft()
            self._changed.notify_all()
            return request

    def _settle(self, request: Request) -> tuple[Request, ...]:
        """Deliver, spool or reject a request, counting it last of all; or the halves that are to be settled instead."""
        verdict = self._attempts(request)
        if isinstance(verdict, TooLarge):
            halves = split(request)
            if halves is not None:
                return halves
            verdict = Rejected(f"a single item is too large for it: {verdict.reason}")
        if isinstance(verdict, Accepted):
            self._accept(request, verdict)
        elif isinstance(verdict, Rejected):
            self._refuse(request, verdict.reason)
        else:
            self._keep(request)
        return ()

    def _attempts(self, request: Request) -> Accepted | TooLarge | Rejected | None:
        """Try until there is an answer that settles the request; None when the destination was given up."""
        failures, since_s = 0, math.inf
        while self._may_send():
            since_s = min(since_s, time.monotonic())
            verdict = self._sender.send(request)
            match verdict:
                case Retry():
                    failures += 1
                    self._failed(verdict)
                    self._pause(self._backoff.wait_s(failures, random.random(), verdict.after_s), since_s, verdict)  # noqa: S311 - jitter
                case Accepted():
                    self._accepted_s = time.monotonic()
                    return verdict
                case TooLarge() | Rejected():
                    return verdict
                case _:
                    assert_never(verdict)
        return None

    def _may_send(self) -> bool:
        """Wait as long as the destination asked all senders to. False if it was given up."""
        while (wait_s := self._not_before_s - time.monotonic()) > 0:
            if self._given_up.wait(min(wait_s, _NAP_S)):
                return False
        return not self._given_up.is_set()

    def _failed(self, verdict: Retry) -> None:
        if verdict.after_s is not None:
            with self._changed:
                self._not_before_s = max(self._not_before_s, time.monotonic() + verdict.after_s)
        self._tell(f"does not take data ({verdict.reason}); trying again for up to {self._give_up_s:g} s")

    def _pause(self, wait_s: float, since_s: float, verdict: Retry) -> None:
        """Wait before the next attempt, or until the destination is given up.

        Args:
            wait_s: How long.
            since_s: When the request that waits was first tried, on the monotonic clock.
            verdict: The last answer.
        """
        tried_s = time.monotonic()
        end_s = tried_s + wait_s
        while not self._given_up.is_set():
            # Read anew each time: a request of another thread may have been accepted.
            deadline_s = max(since_s, self._accepted_s) + self._give_up_s
            now_s = time.monotonic()
            # There is a last attempt at the deadline, unless the destination forbade it.
            if tried_s >= deadline_s or (now_s >= deadline_s and self._not_before_s > now_s):
                self.give_up(f"took nothing for {self._give_up_s:g} s (last: {verdict.reason})")
            elif now_s >= min(end_s, deadline_s):
                return
            else:
                self._given_up.wait(min(end_s - now_s, deadline_s - now_s, _NAP_S))

    # --- the four ends, each counted once -----------------------------------------------------------

    def _accept(self, request: Request, verdict: Accepted) -> None:
        # A count beyond the request's own items would break the account of the others.
        refused = min(max(verdict.rejected_items, 0), request.items)
        words = f": {verdict.message}" if verdict.message else ""
        if words and not refused:
            self._tell(f"took the data with a warning{words}")
        with self._changed:
            self._account.delivered += request.items - refused
            if refused:
                self._account.reject(refused, f"{self._name} took a part only{words}")

    def _refuse(self, request: Request, reason: str) -> None:
        words = f"{self._name} refused: {reason}"
        if self._spool is not None:
            try:
                self._spool.reject(self._name, request, reason)
            except SpoolError as error:
                words += f" (nor could it be kept: {error})"
        self._reject(request, words)

    def _keep(self, request: Request) -> None:
        words = f"{self._name} {self._why_given_up}"
        if self._spool is None:
            self._reject(request, words)
            return
        try:
            self._spool.put(self._name, request)
        except SpoolError as error:
            self._reject(request, f"{words}; it could not be spooled: {error}")
            return
        with self._changed:
            self._account.spooled += request.items

    def _reject(self, request: Request, reason: str) -> None:
        with self._changed:
            self._account.reject(request.items, reason)

    def _tell(self, words: str) -> None:
        """Log a warning once, however many requests meet the same."""
        with self._changed:
            is_new = words not in self._told and len(self._told) < _REASONS
            self._told.add(words)
        if is_new:
            _log.warning("%s %s", self._name, words)


class OtlpSink:
    """Sends spans and points to the endpoints of their signals. It is a RequestSink.

    Args:
        endpoints: The destination of each signal.
        give_up_s: How long to go on trying a destination that takes nothing; an accepted request starts it anew. Then what
            is left goes to `spool`, or is rejected where there is none.
        spool: Where requests are kept that could not be delivered, and those that were refused. It stays open.
        backoff: How long to wait between attempts.

    Raises:
        UsageError: A TLS file cannot be read.
    """

    new_builder = RequestBuilder

    def __init__(
        self,
        endpoints: Mapping[Signal, Endpoint],
        *,
        give_up_s: float,
        spool: Outbox | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._builder = self.new_builder()
        bounded = {signal: _bounded(endpoint, give_up_s) for signal, endpoint in endpoints.items()}
        senders = {signal: sender_for(endpoint) for signal, endpoint in bounded.items()}
        self._destinations = {
            signal: Destination(
                signal, endpoint, senders[signal], give_up_s=give_up_s, spool=spool, backoff=backoff or Backoff()
            )
            for signal, endpoint in bounded.items()
        }

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        """Take finished spans of one resource; waits while the destination is slower."""
        self.take(self._builder.add_spans(resource, spans))

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        """Take data points of one resource; waits while the destination is slower."""
        self.take(self._builder.add_points(resource, points))

    def flush(self) -> None:
        """What is held goes on its way; waits while the destination is slower."""
        self.take(self._builder.flush())

    def take(self, requests: Sequence[Request]) -> None:
        """Take requests of a builder of this kind; waits while the destination is slower."""
        try:
            for request in requests:
                self._destinations[request.signal].put(request)
        except KeyboardInterrupt:
            # Whoever interrupts does not want `close` to go on trying either.
            self._give_up()
            raise

    def close(self) -> Mapping[Signal, Outcome]:
        """Send what is still held, wait until everything is settled and say what became of it.

        It takes at most `give_up_s` and one attempt's time-out without progress. An interrupt ends it within seconds; what
        was not under way is spooled then.
        """
        destinations = self._destinations.values()
        try:
            self.flush()
            for destination in destinations:
                destination.finish()
            return {signal: destination.close() for signal, destination in self._destinations.items()}
        except KeyboardInterrupt:
            self._give_up()
            deadline_s = time.monotonic() + _ABANDON_S
            for destination in destinations:
                destination.finish()
            for destination in destinations:
                destination.join(deadline_s)
            raise

    def _give_up(self) -> None:
        for destination in self._destinations.values():
            destination.give_up("was given up because of the interrupt")


def otlp_sink(to: str | None, env: Mapping[str, str], *, give_up_s: float, spool: Outbox | None) -> OtlpSink:
    """A sink for the address given to `--to`, or where the environment says if it is None.

    Raises:
        UsageError: The address or a variable of the environment cannot be used.
    """
    return OtlpSink(endpoints(to, env), give_up_s=give_up_s, spool=spool)


def sender_for(endpoint: Endpoint) -> Sender:
    """The sender that speaks the endpoint's protocol.

    Raises:
        UsageError: A TLS file cannot be read.
    """
    return GrpcSender(endpoint) if endpoint.protocol == "grpc" else HttpSender(endpoint)


def _bounded(endpoint: Endpoint, give_up_s: float) -> Endpoint:
    """An attempt without a limit of its own would never let a hanging destination be given up."""
    return replace(endpoint, timeout_s=max(give_up_s, DEFAULT_TIMEOUT_S)) if math.isinf(endpoint.timeout_s) else endpoint


def _items(signal: Signal, number: int) -> str:
    singular, plural = _NOUNS[signal]
    return f"{number} {singular if number == 1 else plural}"
