"""Reads `destinations`: each is an endpoint for each signal that goes there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from otelbridge.mapping.source import Node
from otelbridge.otlp.settings import (
    DEFAULT_TIMEOUT_S,
    SIGNALS,
    Headers,
    Protocol,
    Setting,
    SettingError,
    TlsFiles,
    checked_header,
    endpoint_at,
    is_header_name,
    tls_files,
)
from otelbridge.records import SECOND_NS, Signal
from otelbridge.service.config import DestinationConfig, keys
from otelbridge.service.config.tables import TableReader

ENVIRONMENT = "environment"
"""The name of the destination that the OTEL_EXPORTER_OTLP_* variables describe."""
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_MAX_SECRET_BYTES = 1 << 16


class DestinationReader(TableReader):
    """Reads the destinations of one file."""

    _files: list[Path]
    """Those that hold headers of the destination that is being read."""

    def destinations(self, node: Node | None) -> Iterator[DestinationConfig]:
        """All destinations; one with problems has no endpoints."""
        for key, value in self.nodes.entries(node, "'destinations'"):
            if not _NAME.fullmatch(key.text):
                self.problem(key, f"'{key.text}' cannot be the name of a destination", "letters, digits, '_', '.' and '-'")
            elif key.text == ENVIRONMENT:
                self.problem(
                    key,
                    f"'{ENVIRONMENT}' is the destination that the OTEL_EXPORTER_OTLP_* variables describe",
                    "take another name",
                )
            yield self._destination(key.text, value)

    def _destination(self, name: str, node: Node) -> DestinationConfig:
        found = self.table(node, keys.DESTINATION, f"the destination '{name}'")
        self._files = []
        signals = self._signals(found.get("signals"))
        address = self._address(found.get("endpoint"))
        is_grpc = address is not None and address.value.lower().startswith("grpc")
        headers = self._headers(found.get("headers"), "grpc" if is_grpc else "http/protobuf")
        gzip = "compression" in found and self.nodes.choice(found["compression"], ("none", "gzip"), "'compression'") == "gzip"
        timeout_s = self._timeout_s(found.get("timeout"))
        tls = self._tls(found.get("tls"), address)
        if address is None:
            return DestinationConfig(name, {})
        if "@" in address.value.partition("//")[2].partition("/")[0] and any(
            header == "authorization" for header, _ in headers
        ):
            self.problem(
                found["headers"], "the header 'authorization' does not go with a user in 'endpoint'", "remove one of the two"
            )
        try:
            return DestinationConfig(
                name,
                {signal: endpoint_at(address, signal, headers, timeout_s=timeout_s, gzip=gzip, tls=tls) for signal in signals},
                tuple(self._files),
            )
        except SettingError as error:
            self._wrong(found["endpoint"], error)
            return DestinationConfig(name, {})

    def _wrong(self, node: Node, error: SettingError) -> None:
        self.problem(node, f"'{error.whence}': found {error.found}", f"expected {error.expected}")

    def _address(self, node: Node | None) -> Setting | None:
        if node is None:
            return None
        text = self.word(node, "an address").strip()
        return Setting("endpoint", text) if text else None

    def _signals(self, node: Node | None) -> tuple[Signal, ...]:
        if node is None:
            return SIGNALS
        named = [self.nodes.choice(one, SIGNALS, "a signal") for one in self.nodes.some(node, "'signals'")]
        if node.kind == "list" and not named:
            self.problem(node, "'signals' names none, so nothing would go there", "remove it for both")
        return tuple(signal for signal in SIGNALS if signal in named)

    def _timeout_s(self, node: Node | None) -> float:
        timeout_ns = self.nodes.duration(node) if node is not None else None
        return DEFAULT_TIMEOUT_S if timeout_ns is None else timeout_ns / SECOND_NS or math.inf

    def _tls(self, node: Node | None, address: Setting | None) -> TlsFiles:
        if node is None:
            return TlsFiles()
        found = self.table(node, keys.TLS, "'tls'")
        scheme = address.value.partition("//")[0].lower() if address is not None else ""
        if scheme in ("http:", "grpc:"):
            self.problem(
                node, f"'tls' does not go with '{scheme}//', which is without TLS", f"write {scheme[:-1]}s:// or remove 'tls'"
            )
        for one, other in (("cert", "key"), ("key", "cert")):
            if one in found and other not in found:
                self.problem(found[one], f"'{one}' is of no use without '{other}'", f"write '{other}: …' beside it")
                return TlsFiles()
        settings = {name: self._file(name, file) for name, file in found.items()}
        if None in settings.values():
            return TlsFiles()
        try:
            return tls_files(settings.get("ca"), settings.get("cert"), settings.get("key"))
        except SettingError as error:
            self._wrong(found[error.whence], error)
            return TlsFiles()

    def _file(self, name: str, node: Node) -> Setting | None:
        path = self.path(node, "a PEM file")
        return Setting(name, str(path)) if path is not None and self.check_readable(node, path) else None

    def _headers(self, node: Node | None, protocol: Protocol) -> Headers:
        """The headers. Names may be secrets that stand in the wrong place, so only those that can be names are shown."""
        if node is None:
            return ()
        if node.kind != "map":
            self.problem(
                node, f"'headers' is a table of names and values, but {node.what} stands here", "write 'name: value' lines"
            )
            return ()
        found: dict[str, str] = {}
        for key, value in node.entries:
            name = key.text.lower()
            if not is_header_name(name, protocol):
                what = "of gRPC metadata" if protocol == "grpc" else "of a header"
                self.problem(
                    key, f"this cannot be the name {what}", "letters, digits, '-', '_' and '.', for example authorization"
                )
            elif name in found:
                self.problem(key, f"the header '{name}' is given twice", "remove one of the two")
            else:
                found[name] = self._header(name, value, key)
        return tuple(found.items())

    def _header(self, name: str, node: Node, key: Node) -> str:
        if node.kind == "map":
            return self._from_file(name, node)
        if node.kind != "text":
            what = "this header" if key.hidden else f"the header '{name}'"
            self.problem(key, f"{what} has no value", "a text, or {file: PATH}")
            return ""
        return self._checked(name, node, node.text)

    def _from_file(self, name: str, node: Node) -> str:
        entries: Mapping[str, Node] = {key.text: value for key, value in node.entries}
        if list(entries) != ["file"] or len(node.entries) > 1:
            self.problem(node, f"the header '{name}' is neither a text nor {{file: PATH}}", "{file: PATH} has no other key")
            return ""
        path = self.path(entries["file"], "a file")
        if path is None or not self.check_readable(entries["file"], path):
            return ""
        self._files.append(path)
        return self._checked(name, entries["file"], self._secret(entries["file"], path))

    def _secret(self, node: Node, path: Path) -> str:
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_SECRET_BYTES + 1)
        except OSError as error:
            self.problem(node, f"'{path}' cannot be read: {error.strerror or error}", "name a file that holds the value alone")
            return ""
        text = content.decode("latin-1").removesuffix("\n").removesuffix("\r")
        if not text or len(content) > _MAX_SECRET_BYTES:
            size = f"is larger than {_MAX_SECRET_BYTES >> 10} KiB" if text else "is empty"
            self.problem(node, f"'{path}' {size}", "name a file that holds the value alone")
            return ""
        return text

    def _checked(self, name: str, node: Node, value: str) -> str:
        try:
            return checked_header(Setting(name, value), name)
        except SettingError as error:
            self.problem(node, f"found {error.found}", f"expected {error.expected}")
            return ""
