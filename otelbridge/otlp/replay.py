"""Sends what an outbox kept, and shows it."""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from otelbridge.errors import SpoolError, UsageError
from otelbridge.otlp.delivery import sender_for
from otelbridge.otlp.json_lines import request_line
from otelbridge.otlp.outbox import Kept, Outbox
from otelbridge.otlp.requests import joined, split
from otelbridge.otlp.retry import Accepted, Backoff, Rejected, Retry, TooLarge, Verdict
from otelbridge.otlp.settings import DEFAULT_TIMEOUT_S, SIGNALS, Endpoint, endpoint_named, endpoints
from otelbridge.records import Outcome, Request, Signal

Send = Callable[[Request], Verdict]
_Route = tuple[str, Signal]

# Addresses have a colon: http://collector:4318/v1/traces, grpc://collector:4317, unix:/run/otel.sock
_BARE_NAME = re.compile(r"[^:]*")
_REASONS = 20
_log = logging.getLogger(__name__)


class Replayed(NamedTuple):
    """What became of a spool's requests.

    Attributes:
        outcomes: Of each signal; `spooled` is what is still pending.
        damaged: What was not sent because it is damaged, in words.
    """

    outcomes: Mapping[Signal, Outcome]
    damaged: tuple[str, ...]


def replay_spool(folder: Path, *, to: str | None, env: Mapping[str, str], give_up_s: float) -> Replayed:
    """Send every pending request of the spool in `folder` again.

    A request goes to the destination that it was meant for, or to `to` where that is given. Headers and certificates come
    from `env`: a spool holds no secrets.

    Args:
        folder: The spool.
        to: An address as for `--to`.
        env: The environment.
        give_up_s: How long to go on trying a destination that takes nothing; a settled request starts it anew.

    Raises:
        SpoolError: There is no spool, or it cannot be used.
        UsageError: An address or a variable of the environment cannot be used.
    """
    routes = endpoints(to, env)
    with Outbox.existing(folder) as outbox, ExitStack() as senders:

        def send_of(destination: str, signal: Signal) -> Send:
            endpoint = _endpoint(destination, signal, routes[signal], env)
            # An attempt without a limit would never let a hanging destination be given up.
            limit_s = max(give_up_s, DEFAULT_TIMEOUT_S)
            sender = sender_for(replace(endpoint, timeout_s=min(endpoint.timeout_s, limit_s)))
            senders.callback(sender.close)
            return sender.send

        instead = None if to is None else {signal: endpoint.name for signal, endpoint in routes.items()}
        return replay(outbox, send_of, give_up_s=give_up_s, instead=instead)


def replay(
    outbox: Outbox,
    send_of: Callable[[str, Signal], Send],
    *,
    give_up_s: float,
    instead: Mapping[Signal, str] | None = None,
    backoff: Backoff | None = None,
) -> Replayed:
    """Send every pending request, in order and as the same bytes; what is settled leaves the outbox at once.

    An accepted request is removed, a refused one kept apart with the words. One that is too large is sent in halves; what is
    left of it when its destination is given up stays in its place.

    Args:
        outbox: Where they are.
        send_of: Gives what makes one attempt at a destination; it is asked once for each destination and signal.
        give_up_s: How long to go on trying a destination that takes nothing.
        instead: The destination of each signal that stands in for all others; None sends each request to its own.
        backoff: How long to wait between attempts.

    Raises:
        SpoolError: The outbox cannot be used any more.
    """
    accounts = {signal: _Account() for signal in SIGNALS}
    routes: dict[_Route, _Destination] = {}
    for kept in outbox.pending():
        signal = kept.request.signal
        route = (instead[signal] if instead else kept.destination, signal)
        if route not in routes:
            routes[route] = _Destination(route[0], send_of(*route), give_up_s, backoff or Backoff())
        _replay_one(outbox, kept, routes[route], accounts[signal])
    return Replayed({signal: account.outcome() for signal, account in accounts.items()}, outbox.damage())


def show_spool(folder: Path) -> Iterator[str]:
    """The pending requests of the spool in `folder` as lines of OTLP/JSON, without line ends.

    Raises:
        SpoolError: There is no spool, or it cannot be used; at the end, if some requests are damaged and not shown.
    """
    with Outbox.existing(folder) as outbox:
        for kept in outbox.pending():
            yield request_line(kept.request)
        if damaged := outbox.damage():
            raise SpoolError("\n".join([f"{folder}: {len(damaged)} of the pending requests cannot be shown:", *damaged]))


def show_rejected(folder: Path) -> Iterator[str]:
    """The refused requests of the spool in `folder`, each as a JSON object in a line.

    `{"id": 5, "destination": …, "signal": "traces", "items": 3, "reason": the server's words, "request": OTLP/JSON}`

    Raises:
        SpoolError: As `show_spool`.
    """
    with Outbox.existing(folder) as outbox:
        for kept, reason in outbox.rejected():
            head = {"id": kept.id, "destination": kept.destination, "signal": kept.request.signal, "items": kept.request.items}
            fields = json.dumps({**head, "reason": reason}, ensure_ascii=False)
            yield f'{fields[:-1]}, "request": {request_line(kept.request)}}}'
        if damaged := outbox.damage():
            raise SpoolError("\n".join([f"{folder}: {len(damaged)} of the refused requests cannot be shown:", *damaged]))


def _endpoint(destination: str, signal: Signal, configured: Endpoint, env: Mapping[str, str]) -> Endpoint:
    """The endpoint of that name: the configured one, which may hold a password, or else one made from the name."""
    if configured.name == destination:
        return configured
    if _BARE_NAME.fullmatch(destination):
        raise UsageError(
            f"requests wait for {destination!r}, a destination of a service's configuration; its address is not known here. "
            "Say where to send them with --to; nothing was sent"
        )
    # grpc://host:4317, grpcs://host:4317, unix:/run/otel.sock; for HTTP http://host:4318/v1/traces, https://…
    protocol = "http/protobuf" if destination.startswith(("http://", "https://")) else "grpc"
    own = {f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL": protocol}
    return endpoint_named(destination, signal, {**env, **own})


@dataclass(slots=True)
class _Account:
    """What became of one signal's items so far, and why any are not delivered."""

    delivered: int = 0
    spooled: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def reject(self, items: int, reason: str) -> None:
        self.rejected += items
        self._note(items, reason)

    def keep(self, items: int, reason: str) -> None:
        self.spooled += items
        self._note(items, reason)

    def _note(self, items: int, reason: str) -> None:
        known = reason in self.reasons or len(self.reasons) < _REASONS
        self.reasons[reason if known else "other reasons"] += items

    def outcome(self) -> Outcome:
        reasons = tuple(f"{reason} ({items} item{'' if items == 1 else 's'})" for reason, items in self.reasons.items())
        return Outcome(self.delivered, self.spooled, self.rejected, reasons)


class _Destination:
    """One destination, tried until it takes nothing for `give_up_s`."""

    def __init__(self, name: str, send: Send, give_up_s: float, backoff: Backoff) -> None:
        self.name = name
        self.why_given_up = ""
        self._send = send
        self._give_up_s = give_up_s
        self._backoff = backoff

    def attempts(self, request: Request) -> Accepted | TooLarge | Rejected | None:
        """Try until there is an answer that settles the request; None once the destination is given up."""
        begin_s = time.monotonic()
        failures = 0
        while not self.why_given_up:
            verdict = self._send(request)
            if not isinstance(verdict, Retry):
                return verdict
            failures += 1
            wait_s = self._backoff.wait_s(failures, random.random(), verdict.after_s)  # noqa: S311 - jitter
            left_s = begin_s + self._give_up_s - time.monotonic()
            if verdict.after_s is not None and verdict.after_s > left_s:
                self.why_given_up = f"it asked to wait for {verdict.after_s:g} s, longer than is left; last: {verdict.reason}"
            elif left_s <= 0:
                self.why_given_up = f"gave up after {self._give_up_s:g} s without an accepted request; last: {verdict.reason}"
            else:
                time.sleep(min(wait_s, left_s))
        return None


def _replay_one(outbox: Outbox, kept: Kept, destination: _Destination, account: _Account) -> None:
    """Settle a request, whole or piece by piece, or leave what is left of it pending."""
    pieces = [kept.request]
    while pieces:
        piece = pieces.pop()
        verdict = destination.attempts(piece)
        halves = split(piece) if isinstance(verdict, TooLarge) else None
        if halves is not None:
            # The first half comes next, the second after it.
            pieces += reversed(halves)
        elif verdict is None:
            pieces.append(piece)
            account.keep(sum(p.items for p in pieces), f"{destination.name}: {destination.why_given_up}")
            return
        else:
            _settle(outbox, kept, piece, pieces, verdict)
            _count(account, destination.name, piece, verdict)


def _settle(outbox: Outbox, kept: Kept, piece: Request, pieces: list[Request], verdict: Accepted | TooLarge | Rejected) -> None:
    """Take a settled piece out of the outbox; `pieces` is what is left of its request, the first last."""
    rest = joined(pieces)
    if isinstance(verdict, Accepted):
        if rest is None:
            outbox.remove(kept.id)
        else:
            outbox.keep_rest(kept.id, rest)
    elif piece is kept.request:
        outbox.move_to_rejected(kept.id, verdict.reason)
    else:
        outbox.keep_rest(kept.id, rest, (piece, verdict.reason))


def _count(account: _Account, name: str, piece: Request, verdict: Accepted | TooLarge | Rejected) -> None:
    if not isinstance(verdict, Accepted):
        account.reject(piece.items, f"{name} refused: {verdict.reason}")
        return
    # A count beyond the request's own items would break the account of the others.
    refused = min(max(verdict.rejected_items, 0), piece.items)
    account.delivered += piece.items - refused
    if refused:
        account.reject(refused, f"{name} took a part only: {verdict.message}")
    elif verdict.message:
        _log.warning("%s took the data with a warning: %s", name, verdict.message)
