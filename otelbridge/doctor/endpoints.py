"""Whether destinations answer: an empty request to each, and what its failure means."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from otelbridge.doctor.findings import Finding, Mark
from otelbridge.errors import UsageError
from otelbridge.otlp.delivery import sender_for
from otelbridge.otlp.retry import Accepted, Rejected, Retry, Verdict
from otelbridge.otlp.settings import Endpoint
from otelbridge.records import Request, Signal

TIMEOUT_S = 3.0
LIMIT_S = 8.0
"""For all of a destination, whatever its name server does meanwhile."""
_STANDARD = {4317: 4318, 4318: 4317}
_LENGTH = 200

ResultT = TypeVar("ResultT")


class Answer(NamedTuple):
    """What came of an empty request.

    Attributes:
        destination: Its name in the configuration.
        signal: What it was a request for.
        endpoint: Where it went.
        verdict: What came back.
        elsewhere: An address beside it that does answer OTLP, empty if none was found.
        proxy: The variable of the environment by which it goes through a proxy, empty if it goes there directly.
    """

    destination: str
    signal: Signal
    endpoint: Endpoint
    verdict: Verdict
    elsewhere: str = ""
    proxy: str = ""


# --- gathering --------------------------------------------------------------------------------------


def ask(destinations: Mapping[str, Mapping[Signal, Endpoint]]) -> list[Answer]:
    """What every destination answers to an empty request of each signal. All are asked at once."""
    asked = [(name, signal, endpoint) for name, endpoints in destinations.items() for signal, endpoint in endpoints.items()]
    answers = _at_once([partial(_ask, *one) for one in asked], LIMIT_S)
    nothing = Retry(f"timed out after {LIMIT_S:g} s, perhaps while its name was looked up")
    return [answer or Answer(*one, nothing) for answer, one in zip(answers, asked, strict=True)]


def _ask(name: str, signal: Signal, endpoint: Endpoint) -> Answer:
    verdict = _send(signal, endpoint)
    elsewhere = ""
    if may_be_elsewhere(verdict):
        others = list(beside(endpoint, signal))
        verdicts = _at_once([partial(_send, signal, other) for _, other in others], TIMEOUT_S)
        elsewhere = next((other[0] for other, found in zip(others, verdicts, strict=True) if found and speaks(found)), "")
    return Answer(name, signal, endpoint, verdict, elsewhere, _proxy(endpoint))


def _at_once(calls: Sequence[Callable[[], ResultT]], limit_s: float) -> list[ResultT | None]:
    """What the calls give, all at the same time; None for one that takes longer."""
    results: list[ResultT | None] = [None] * len(calls)

    def call(place: int) -> None:
        results[place] = calls[place]()

    # Daemons, which no end of the process waits for: nothing bounds how long a name is looked up.
    threads = [threading.Thread(target=call, args=(place,), daemon=True) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return list(results)


def _proxy(endpoint: Endpoint) -> str:
    if endpoint.protocol == "grpc":
        return ""
    parts = urlsplit(endpoint.url)
    host = parts.hostname or ""
    is_near = host == "localhost" or host.startswith("127.") or host == "::1"
    return "" if is_near or parts.scheme not in getproxies() or proxy_bypass(host) else f"{parts.scheme}_proxy"


def _send(signal: Signal, endpoint: Endpoint) -> Verdict:
    try:
        sender = sender_for(replace(endpoint, timeout_s=min(TIMEOUT_S, endpoint.timeout_s)))
    except UsageError as error:
        return Rejected(str(error))
    try:
        return sender.send(Request(signal, b"", 0))
    finally:
        sender.close()


# --- deciding ---------------------------------------------------------------------------------------


def may_be_elsewhere(verdict: Verdict) -> bool:
    """Whether a failure can come of the wrong port or the wrong protocol."""
    return isinstance(verdict, Retry) and not re.search(r"HTTP \d|resolv|not known|CERTIFICATE_VERIFY|Hostname", verdict.reason)


def speaks(verdict: Verdict) -> bool:
    """Whether the other end speaks this protocol: it took the request, or its TLS was only not trusted."""
    if isinstance(verdict, Accepted):
        return not verdict.message
    return isinstance(verdict, Retry) and "CERTIFICATE_VERIFY_FAILED" in verdict.reason


def beside(endpoint: Endpoint, signal: Signal) -> Iterator[tuple[str, Endpoint]]:
    """Addresses that may have been meant: the other protocol, here or at its own port, and TLS switched over."""
    is_grpc = endpoint.protocol == "grpc"
    parts = urlsplit(f"//{endpoint.url}" if is_grpc else endpoint.url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return
    if not host or (is_grpc and ("/" in endpoint.url or port is None)):
        return  # unix:/run/otel.sock
    port = port or (80 if endpoint.insecure else 443)
    shown = f"[{host}]" if ":" in host else host
    for insecure in (endpoint.insecure, not endpoint.insecure):
        for other_port in dict.fromkeys((port, _STANDARD.get(port, port))):
            for other in ("http/protobuf", "grpc"):
                if (insecure, other_port, other) == (endpoint.insecure, port, endpoint.protocol):
                    continue
                scheme = ("http" if other == "http/protobuf" else "grpc") + ("" if insecure else "s")
                address = f"{scheme}://{shown}:{other_port}"
                if other == "grpc":
                    yield address, replace(endpoint, url=f"{shown}:{other_port}", protocol="grpc", insecure=insecure)
                else:
                    url = f"{address}/v1/{signal}"
                    yield address, replace(endpoint, url=url, protocol="http/protobuf", insecure=insecure)


class _Cause(NamedTuple):
    """What a failure's words mean, and the way out of it. `{signal}` is filled in."""

    sign: re.Pattern[str]
    mark: Mark
    text: str
    help: str


def _cause(sign: str, text: str, help_: str, mark: Mark = "problem") -> _Cause:
    return _Cause(re.compile(sign, re.IGNORECASE), mark, text, help_)


_CAUSES = (
    _cause(
        "certificate has expired", "its certificate has expired",
        "renew it there; if it has not, set this host's clock",
    ),
    _cause(
        "hostname mismatch|ip address mismatch|hostname verification", "its certificate is for another name than this address",
        "use a name that the certificate has, or issue one with this name",
    ),
    _cause(
        "CERTIFICATE_VERIFY_FAILED", "nothing here trusts its certificate",
        "name its authority: OTEL_EXPORTER_OTLP_CERTIFICATE=ca.pem, or 'tls: {ca: ca.pem}' of the destination",
    ),
    _cause(
        "WRONG_VERSION_NUMBER", "it speaks without TLS",
        "write http:// or grpc:// in place of https:// or grpcs://, or switch TLS on there",
    ),
    _cause(
        "certificate.?required|EOF occurred in violation|handshake failure|bad certificate", "it broke off the TLS handshake",
        "it may want a certificate of this client: 'tls: {cert: …, key: …}', or OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _KEY",
    ),
    _cause(
        "name or service not known|no address associated|resolving|resolution|gaierror", "its name is not known here",
        "check the spelling and this host's DNS; in Kubernetes the name is SERVICE.NAMESPACE",
    ),
    _cause(
        "connection refused", "nothing listens there",
        "start the Collector, or correct host and port: 4318 is OTLP over HTTP, 4317 over gRPC",
    ),
    _cause(
        "timed out|timeout|DEADLINE_EXCEEDED", "nothing answers there in 3 s",
        "see whether a firewall or a NetworkPolicy is in the way, and whether it is the right host and port",
    ),
    _cause("unreachable|no route", "there is no way to it", "see to the routes of this host, and whether the address is right"),
    _cause(
        "HTTP (404|405)|UNIMPLEMENTED", "it does not take {signal} at this path",
        "give the address without v1/traces, which is added, but with what the receiver has before it: "
        "http://HOST:9090/api/v1/otlp for Prometheus",
    ),
    _cause(
        "HTTP (401|403)|UNAUTHENTICATED|PERMISSION_DENIED", "it wants to know who sends",
        "set its headers: OTEL_EXPORTER_OTLP_HEADERS=authorization=…, or 'headers' of the destination",
    ),
    _cause(
        "HTTP (429|50[234])|RESOURCE_EXHAUSTED", "it is there, but takes nothing now",
        "see its own log; what is sent meanwhile waits in the outbox", "warning",
    ),
    _cause("redirects to", "it redirects, which is not followed", "send to the address that it names"),
)  # fmt: skip
_NOT_THIS = _cause(
    "HTTP (404|405)|UNIMPLEMENTED", "it takes no {signal}",
    "leave them out by 'signals', or send them elsewhere: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and ..._METRICS_ENDPOINT",
)  # fmt: skip
_OTHER = _cause("", "it did not take an empty request", "see what listens there: is it an OTLP receiver?")


def endpoint_findings(answers: Sequence[Answer]) -> list[Finding]:
    """What is to be said of the destinations; where one takes all its signals, that is one line."""
    findings = []
    for name in dict.fromkeys(answer.destination for answer in answers):
        own = [answer for answer in answers if answer.destination == name]
        good = [answer for answer in own if isinstance(answer.verdict, Accepted) and not answer.verdict.message]
        if good:
            signals = " and ".join(answer.signal for answer in good)
            where = " and ".join(dict.fromkeys(_where(answer) for answer in good))
            findings.append(Finding("ok", "endpoint", f"'{name}' takes {signals}: {where}"))
        causes: dict[_Cause, list[Answer]] = {}
        for answer in own:
            if answer not in good:
                causes.setdefault(_cause_of(answer, others=bool(good)), []).append(answer)
        findings += [_failed(name, cause, alike) for cause, alike in causes.items()]
    return findings


NO_ENDPOINT = Finding(
    "warning", "endpoint", "no destination is named, so none was asked",
    "set OTEL_EXPORTER_OTLP_ENDPOINT=http://HOST:4318, or give the service's file with --config",
)  # fmt: skip


def _failed(name: str, cause: _Cause, alike: Sequence[Answer]) -> Finding:
    where = " and ".join(dict.fromkeys(_where(answer) for answer in alike))
    signals = " and ".join(answer.signal for answer in alike)
    text, help_ = (part.replace("{signal}", signals) for part in (cause.text, cause.help))
    if proxy := alike[0].proxy:
        help_ += f"; it goes through the proxy of '{proxy}', unless its host stands in 'no_proxy'"
    return Finding(cause.mark, "endpoint", f"'{name}', {where}: {text} ({_words(alike[0].verdict)[:_LENGTH]})", help_)


def _where(answer: Answer) -> str:
    return answer.endpoint.name


def _words(verdict: Verdict) -> str:
    return verdict.message if isinstance(verdict, Accepted) else verdict.reason


def _cause_of(answer: Answer, *, others: bool) -> _Cause:
    """Why it failed; `others` if the same destination takes the other signal."""
    if answer.elsewhere:
        help_ = f"write {answer.elsewhere}, where an OTLP receiver answers"
        return _cause("", "no OTLP is spoken there in this way", help_)
    if isinstance(answer.verdict, Accepted):
        return _cause("", "it answers, but not as an OTLP receiver does", _OTHER.help)
    if others and _NOT_THIS.sign.search(_words(answer.verdict)):
        return _NOT_THIS
    return next((cause for cause in _CAUSES if cause.sign.search(_words(answer.verdict))), _OTHER)
