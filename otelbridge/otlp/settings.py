"""Where OTLP goes and how: the OTEL_EXPORTER_OTLP_* variables and the addresses of `--to`.

Source: opentelemetry-specification, protocol/exporter.md; configuration/common.md (an empty variable is unset, a time-out of
zero is no limit).
"""

from __future__ import annotations

import base64
import math
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from otelbridge.errors import UsageError
from otelbridge.records import Signal

Protocol = Literal["grpc", "http/protobuf"]
Headers = tuple[tuple[str, str], ...]

SIGNALS: tuple[Signal, ...] = ("traces", "metrics")
DEFAULT_TIMEOUT_S = 10.0

_PREFIX = "OTEL_EXPORTER_OTLP_"
_DEFAULTS: Mapping[Protocol, str] = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
_PORTS = {"http": 80, "https": 443, "grpc": 4317, "grpcs": 4317}
_MAX_PORT = 65_535
# https://user:password@host:4318/path
_PORT = re.compile(r"[^/?#]*//[^/?#]*:([0-9]+)(?:[/?#]|$)")
# Names of gRPC's own resolvers: unix:/run/otel.sock, dns:///collector:4317
_GRPC_TARGET = re.compile(r"(?:dns|unix|unix-abstract|ipv4|ipv6|vsock):\S+")
_HOST_PORT = re.compile(r"(?:[^\s:/@?#\[\]]+|\[[0-9A-Fa-f:.%]+\]):\d{1,5}")
# http://user:password, its host forgotten
_NO_PORT = re.compile(r"(//[^/:@\[\]]*:)(?!\d*(?:[/?]|$))[^/]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_GRPC_HEADER_NAME = re.compile(r"(?!grpc-)[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS = {"content-type", "content-encoding", "content-length", "transfer-encoding", "host", "te"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One signal's destination.

    Attributes:
        url: For HTTP the URL that requests are posted to, for gRPC the channel's target. It holds no user and password;
            those of the configured address became an `authorization` header.
        name: The destination for messages and for the outbox, without anything secret.
        headers: Names in lower case, and values. The values are secrets, so they stay out of `repr`.
        timeout_s: For one attempt; infinite where the time-out was set to 0.
        insecure: No TLS.
        ca: PEM file of the authorities that may vouch for the destination; None for the system's own.
        cert: PEM file of the client's certificate, always together with `key`.
        key: PEM file of the client's private key.
    """

    url: str = field(repr=False)
    protocol: Protocol
    name: str
    headers: Headers = field(default=(), repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    gzip: bool = False
    insecure: bool = True
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Setting(NamedTuple):
    """A value and where it was found: the name of a variable, `--to`, or a key of a file."""

    whence: str
    value: str


class SettingError(UsageError):
    """A setting that cannot be used.

    Attributes:
        whence: Where it was found.
        found: What stands there, without what is secret in it.
        expected: What should stand there.
    """

    def __init__(self, whence: str, found: str, expected: str) -> None:
        self.whence, self.found, self.expected = whence, found, expected
        super().__init__(f"{whence}: found {found}, expected {expected}; nothing was sent")


def configured(env: Mapping[str, str]) -> bool:
    """Whether the environment names an endpoint for any signal."""
    return any(env.get(f"{_PREFIX}{part}ENDPOINT", "").strip() for part in ("", "TRACES_", "METRICS_"))


def endpoints(to: str | None, env: Mapping[str, str]) -> dict[Signal, Endpoint]:
    """The destination of each signal.

    Args:
        to: The address given to `--to`; it stands in for all the ENDPOINT variables. None leaves it to the environment.
        env: The environment. Variables of one signal win over those of all.

    Raises:
        UsageError: A variable or the address cannot be used; it says which, what was found and what is expected.
    """
    return {signal: _endpoint(signal, None if to is None else Setting("--to", to.strip()), env) for signal in SIGNALS}


def endpoint_named(name: str, signal: Signal, env: Mapping[str, str]) -> Endpoint:
    """The endpoint that once had this `name`, with the credentials and the time-out that the environment holds now.

    Raises:
        UsageError: The name or a variable cannot be used.
    """
    return _endpoint(signal, Setting("the destination's name", name), env, as_is=True)


def endpoint_at(
    address: Setting,
    signal: Signal,
    headers: Headers = (),
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    gzip: bool = False,
    tls: TlsFiles | None = None,
) -> Endpoint:
    """The endpoint of a signal at the base address http(s)://… or grpc(s)://…, whatever the environment says.

    Args:
        address: As `--to` takes it.
        signal: What is sent there.
        headers: Checked ones (`checked_header`); one `authorization` is added where the address has user and password.
        timeout_s: For one attempt, infinite for no limit.
        gzip: Whether requests are compressed.
        tls: What `tls_files` found.

    Raises:
        SettingError: The address cannot be used.
    """
    protocol = _protocol(address, None)
    if protocol == "grpc":
        url, name, insecure, userinfo = _grpc_target(address, insecure=False)
    else:
        url, name, insecure, userinfo = _http_url(address, signal, as_is=False)
    ca, cert, key = tls or TlsFiles()
    return Endpoint(
        url, protocol, name, _with_authorization(headers, userinfo), timeout_s, gzip, insecure, ca, cert, key
    )  # fmt: skip


def _endpoint(signal: Signal, to: Setting | None, env: Mapping[str, str], *, as_is: bool = False) -> Endpoint:
    own = _own(env, signal, "ENDPOINT") if to is None else None
    address = to or own or _found(env, signal, "ENDPOINT")
    protocol = _protocol(address, _found(env, signal, "PROTOCOL"))
    address = address or Setting("the default", _DEFAULTS[protocol])
    if protocol == "grpc":
        url, name, insecure, userinfo = _grpc_target(address, insecure=_insecure(_found(env, signal, "INSECURE")))
    else:
        url, name, insecure, userinfo = _http_url(address, signal, as_is=as_is or own is not None)
    ca, cert, key = TlsFiles() if insecure else _tls_files(env, signal)
    return Endpoint(
        url=url,
        protocol=protocol,
        name=name,
        headers=_with_authorization(_headers(_found(env, signal, "HEADERS"), protocol), userinfo),
        timeout_s=_timeout_s(_found(env, signal, "TIMEOUT")),
        gzip=_is_gzip(_found(env, signal, "COMPRESSION")),
        insecure=insecure,
        ca=ca,
        cert=cert,
        key=key,
    )


def _own(env: Mapping[str, str], signal: Signal, what: str) -> Setting | None:
    variable = f"{_PREFIX}{signal.upper()}_{what}"
    value = env.get(variable, "").strip()
    return Setting(variable, value) if value else None


def _found(env: Mapping[str, str], signal: Signal, what: str) -> Setting | None:
    value = env.get(_PREFIX + what, "").strip()
    return _own(env, signal, what) or (Setting(_PREFIX + what, value) if value else None)


def _wrong(setting: Setting, expected: str, *, found: str | None = None) -> SettingError:
    return SettingError(setting.whence, found or repr(setting.value), expected)


# --- addresses --------------------------------------------------------------------------------------


class _Address(NamedTuple):
    url: str
    name: str
    insecure: bool
    userinfo: str | None


def _protocol(address: Setting | None, setting: Setting | None) -> Protocol:
    """The protocol: a grpc:// address says it by itself, then the PROTOCOL variable, then the specification's default."""
    if setting is not None and setting.value == "http/json":
        raise _wrong(setting, "http/protobuf or grpc (otelbridge sends protobuf only)")
    if setting is not None and setting.value not in ("grpc", "http/protobuf"):
        raise _wrong(setting, "grpc or http/protobuf")
    if address is not None and address.value.lower().startswith(("grpc://", "grpcs://")):
        return "grpc"
    return "grpc" if setting is not None and setting.value == "grpc" else "http/protobuf"


def _split(address: Setting, schemes: tuple[str, ...], expected: str) -> SplitResult:
    """The parts of a URL with a host.

    Raises:
        UsageError: It is none. The address may hold a password, so the message shows no more than what stands after it.
    """
    shown = repr(_NO_PORT.sub(r"\1…", address.value.rpartition("@")[2].partition("?")[0]))
    try:
        parts = urlsplit(address.value)
        is_good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    port = _PORT.match(address.value)
    if port is not None and not 0 < int(port[1][:6]) <= _MAX_PORT:
        raise _wrong(address, f"{expected}; a port is a number from 1 to {_MAX_PORT}", found=shown)
    if not is_good or re.search(r"[\s\x00-\x1f]", address.value) or parts.fragment:
        raise _wrong(address, expected, found=shown)
    return parts


def may_hold_secret(address: str) -> bool:
    """Whether an address has a user, a query, or what may be a password."""
    return "@" in address or "?" in address or _NO_PORT.search(address) is not None


def _host_port(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2]
    return host if parts.port is not None else f"{host.rstrip(':')}:{_PORTS[parts.scheme]}"


def _userinfo(parts: SplitResult) -> str | None:
    userinfo = parts.netloc.rpartition("@")[0]
    return unquote(userinfo) if userinfo else None


def _grpc_target(address: Setting, *, insecure: bool) -> _Address:
    if _GRPC_TARGET.fullmatch(address.value):
        return _Address(address.value, address.value, insecure, None)
    if _HOST_PORT.fullmatch(address.value):
        return _Address(address.value, f"{'grpc' if insecure else 'grpcs'}://{address.value}", insecure, None)
    expected = "the address of a gRPC receiver, such as grpc://collector:4317 (grpcs:// with TLS)"
    parts = _split(address, ("http", "https", "grpc", "grpcs"), expected)
    if parts.path not in ("", "/") or parts.query:
        found = f"the path {parts.path!r}" if parts.path not in ("", "/") else "a query"
        raise _wrong(address, f"{expected}; gRPC has neither path nor query", found=found)
    target, is_plain = _host_port(parts), parts.scheme in ("http", "grpc")
    return _Address(target, f"{'grpc' if is_plain else 'grpcs'}://{target}", is_plain, _userinfo(parts))


def _http_url(address: Setting, signal: Signal, *, as_is: bool) -> _Address:
    expected = "a URL such as http://collector:4318 or https://…; for gRPC write grpc://collector:4317"
    parts = _split(address, ("http", "https"), expected)
    if not as_is and parts.path.rstrip("/").endswith(("/v1/traces", "/v1/metrics")):
        raise _wrong(
            address, "the base of the URLs; v1/traces and v1/metrics are appended to it", found=f"the path {parts.path!r}"
        )
    path = parts.path or "/" if as_is else f"{parts.path.rstrip('/')}/v1/{signal}"
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit((parts.scheme, host, path, parts.query, ""))
    return _Address(url, urlunsplit((parts.scheme, host, path, "", "")), parts.scheme == "http", _userinfo(parts))


# --- the other variables ----------------------------------------------------------------------------


def _insecure(setting: Setting | None) -> bool:
    if setting is None:
        return False
    if setting.value.lower() not in ("true", "false"):
        raise _wrong(setting, "true or false")
    return setting.value.lower() == "true"


def _timeout_s(setting: Setting | None) -> float:
    if setting is None:
        return DEFAULT_TIMEOUT_S
    if not re.fullmatch(r"[0-9]{1,9}", setting.value):
        raise _wrong(setting, "a whole number of milliseconds, such as 10000 (0: no limit)")
    return int(setting.value) / 1000 or math.inf


def _is_gzip(setting: Setting | None) -> bool:
    if setting is None:
        return False
    if setting.value not in ("gzip", "none"):
        raise _wrong(setting, "gzip or none")
    return setting.value == "gzip"


def _headers(setting: Setting | None, protocol: Protocol) -> Headers:
    """The headers of `api-key=secret,x-scope=a%2Cb`; the last of one name wins.

    Raises:
        UsageError: An entry cannot be a header. Values are secrets, so the message counts entries instead of showing them.
    """
    if setting is None:
        return ()
    found: dict[str, str] = {}
    for number, entry in enumerate(setting.value.split(","), start=1):
        if not entry.strip():
            continue
        name, equals, value = entry.partition("=")
        # Metadata after a semicolon is part of W3C baggage, not of this variable: a semicolon belongs to the value.
        name, value = unquote(name.strip()).lower(), unquote(value.strip())
        if not equals or not is_header_name(name, protocol):
            raise _wrong(
                setting, "name=value pairs with commas between them, percent-encoded", found=f"no such pair as entry {number}"
            )
        found[name] = checked_header(Setting(setting.whence, value), name)
    return tuple(found.items())


def is_header_name(name: str, protocol: Protocol) -> bool:
    """Whether a header (gRPC: metadata) can have this name, in lower case."""
    return bool((_GRPC_HEADER_NAME if protocol == "grpc" else _HEADER_NAME).fullmatch(name))


def checked_header(value: Setting, name: str) -> str:
    """The value of a header.

    Raises:
        SettingError: It cannot be sent, or not with that name; the value is in no message.
    """
    if not _HEADER_VALUE.fullmatch(value.value):
        raise _wrong(value, "printable ASCII characters", found=f"others in the value of {name!r}")
    if name in _OURS:
        raise _wrong(value, "headers other than those that otelbridge sets itself", found=f"the header {name!r}")
    return value.value


def _with_authorization(headers: Headers, userinfo: str | None) -> Headers:
    if userinfo is None or any(name == "authorization" for name, _ in headers):
        return headers
    return (*headers, ("authorization", "Basic " + base64.b64encode(userinfo.encode()).decode()))


class TlsFiles(NamedTuple):
    """PEM files: authorities, the client's certificate and its key; the two latter come together."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def _tls_files(env: Mapping[str, str], signal: Signal) -> TlsFiles:
    ca, cert, key = (_found(env, signal, what) for what in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"))
    if (cert is None) != (key is None):
        given, missing = (cert, "CLIENT_KEY") if cert is not None else (key, "CLIENT_CERTIFICATE")
        whence = given.whence if given is not None else ""
        raise UsageError(f"{whence} is set, but {_PREFIX}{missing} is not; expected both or neither; nothing was sent")
    return tls_files(ca, cert, key)


def tls_files(ca: Setting | None, cert: Setting | None, key: Setting | None) -> TlsFiles:
    """The PEM files, each tried as OpenSSL will use it, so that a wrong one is found before anything is read or sent.

    Args:
        ca: The authorities.
        cert: The client's certificate, only together with `key`.
        key: Its private key.

    Raises:
        SettingError: A file cannot be used.
    """
    for setting in filter(None, (ca, cert, key)):
        if not (Path(setting.value).is_file() and os.access(setting.value, os.R_OK)):
            raise _wrong(setting, "the path of a readable PEM file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(ca.value)
        except (ssl.SSLError, OSError) as error:
            raise _wrong(ca, f"a PEM file of certificates ({error})") from error
    if cert is not None and key is not None:
        try:
            context.load_cert_chain(cert.value, key.value, password="")
        except (ssl.SSLError, OSError) as error:
            raise _wrong(key, f"the unencrypted PEM key of the certificate in {cert.value!r} ({error})") from error
    return TlsFiles(*(None if setting is None else Path(setting.value) for setting in (ca, cert, key)))
