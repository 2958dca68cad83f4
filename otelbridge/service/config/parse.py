"""Reads the configuration file: all that is wrong in it is found at once, with its place and a repair.

Relative paths are those beside the file. A key with nothing after it is as good as not there.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from otelbridge.errors import ConfigError, Location, UsageError
from otelbridge.mapping.language import Section
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.source import Node, Problems, did_you_mean, read_text
from otelbridge.mapping.yaml_nodes import parse
from otelbridge.otlp.settings import SIGNALS
from otelbridge.pipeline.options import environment_attributes
from otelbridge.readers.clock import read_clock
from otelbridge.records import Attributes
from otelbridge.service.config import (
    DestinationConfig,
    HealthConfig,
    InputConfig,
    LogConfig,
    OutboxConfig,
    ServiceConfig,
    TelemetryConfig,
    keys,
)
from otelbridge.service.config.arguments import NO_STATE_FOLDER, environment_destinations, state_folder
from otelbridge.service.config.concealed import hide, shown, shown_early, shown_unparsed
from otelbridge.service.config.destinations import ENVIRONMENT, DestinationReader
from otelbridge.service.config.names import problem_of
from otelbridge.service.config.tables import TableReader
from otelbridge.service.config.variables import expanded

# `SYSLOG_IDENTIFIER=qemu-system-x86_64`
_MATCH = re.compile(r"[A-Z_][A-Z0-9_]*=.*", re.DOTALL)
# 127.0.0.1:13133  [::1]:13133  localhost:0
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")
_MAX_PORT = 65_535


def load_config(path: Path, env: Mapping[str, str]) -> ServiceConfig:
    """What a configuration file says, with all defaults, the environment's variables and the secrets of files put in.

    Raises:
        UsageError: The file cannot be read, or a variable of OpenTelemetry that counts here cannot be used.
        ConfigError: The file has problems; all of them, none showing a secret.
    """
    text = read_text(path, "The configuration", ConfigError)
    root, problems = parse(text, str(path))
    if root is None and not problems.found:
        problems.add(Location(str(path), 1, 1), "the file is empty", "a configuration begins with 'version: 1' and 'inputs:'")
    if root is None:
        raise ConfigError([shown_unparsed(problem, text) for problem in problems.found])
    pieces = hide(root)
    early = len(problems.found)
    unresolved = _expand(root, env, problems)
    late = len(problems.found)
    config = _FileReader(problems, path.parent.absolute(), env).file(root)
    if problems.found:
        # What is wrong with a value follows from a variable that is not there.
        found = [shown_early(problem, text, pieces) for problem in problems.found[:early]]
        found += [shown(problem, pieces) for problem in problems.found[early:late]]
        found += [shown(p, pieces) for p in problems.found[late:] if p.location[:3] not in unresolved]
        raise ConfigError(found)
    return _with_environment(replace(config, source=path), env)


def _with_environment(config: ServiceConfig, env: Mapping[str, str]) -> ServiceConfig:
    resource = dict(config.resource) | dict(environment_attributes(env))
    return replace(
        config, resource=tuple(resource.items()), destinations=config.destinations or environment_destinations(env)
    )  # fmt: skip


# --- references to the environment -------------------------------------------------------------------


def _expand(root: Node, env: Mapping[str, str], problems: Problems) -> set[tuple[str, int, int]]:
    """Put the environment's variables into all values; the places of those where one could not be."""
    unresolved = set[tuple[str, int, int]]()
    for node in _values(root):
        text, wrong = expanded(node.text, env)
        for one in wrong:
            problems.add(_place_in(node, one.start, one.end), *one.said(secretly=node.hidden))
            unresolved.add((node.location.path, node.location.line, node.location.column))
        if not wrong and text != node.text:
            node.text = text
            if not text and not node.quoted:
                node.kind = "null"
    return unresolved


def _values(root: Node) -> Iterator[Node]:
    """All scalars that are no keys; what aliases repeat comes up once."""
    seen, waiting = set[int](), [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            waiting += [*node.items, *(value for _, value in node.entries)]
            if node.kind == "text" and "$" in node.text:
                yield node


def _place_in(node: Node, start: int, end: int) -> Node | Location:
    """Where a piece of a scalar stands; the whole scalar, where escapes or line ends make that unclear."""
    place = node.location
    quotes = place.length - len(node.text)
    if node.hidden or node.start is None or node.end is None or node.start.line != node.end.line or quotes not in (0, 2):
        return node
    return Location(place.path, place.line, place.column + quotes // 2 + start, end - start)


# --- the tables of the file --------------------------------------------------------------------------


class _FileReader(TableReader):
    """Reads the tables of one file."""

    def __init__(self, problems: Problems, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(NodeReader(problems), folder)
        self._env = env

    def file(self, root: Node) -> ServiceConfig:
        """The whole file; if problems were noted, not to be used."""
        found = self.table(root, keys.FILE, "the file")
        version = found.get("version")
        if version is not None and version.text != "1":
            self.problem(version, f"version {version.what} is not known", "this otelbridge reads version 1")
        destinations = self._destinations(found.get("destinations"))
        limits = self._section(found, "limits", keys.LIMITS)
        shutdown = self._section(found, "shutdown", keys.SHUTDOWN)
        given = {
            "catalogue": self._readable(found.get("catalogue")),
            "grace_ns": self.nodes.duration(shutdown["grace"]) if "grace" in shutdown else None,
            "max_streams": self.nodes.at_least_one(limits["streams"], "a limit of") if "streams" in limits else None,
        }
        return ServiceConfig(
            inputs=self._inputs(found.get("inputs")),
            destinations=destinations,
            outbox=self._outbox(found, root),
            mappings=tuple(self.paths(found["mappings"], "a mapping")) if "mappings" in found else (),
            resource=self._attributes(found.get("resource"), "'resource'"),
            telemetry=self._telemetry(found, destinations),
            health=self._health(found.get("health")),
            log=self._log(found),
            **_only_given(given),
        )

    def _section(self, found: Mapping[str, Node], name: str, section: Section) -> dict[str, Node]:
        return self.table(found[name], section, f"'{name}'") if name in found else {}

    def _inputs(self, node: Node | None) -> tuple[InputConfig, ...]:
        if node is None:
            return ()
        items = self.nodes.items(node, "'inputs'")
        if node.kind == "list" and not items:
            self.problem(
                node, "there is no input, so nothing would be read", "for example [{files: /var/log/libvirt/qemu/*.log}]"
            )
        return tuple(one for one in map(self._input, items) if one is not None)

    def _input(self, node: Node) -> InputConfig | None:
        found = self.table(node, keys.INPUT, "an input")
        kinds = [kind for kind in keys.KINDS if kind in found]
        if not kinds:
            if node.kind in ("map", "null"):
                self.problem(node, "an input has neither 'files' nor 'pipe' nor 'journald'", "for example 'files: /path/*.log'")
            return None
        self.nodes.only_one_of(found, keys.KINDS)
        kind = kinds[0]
        for name in keys.NOT_WITH[kind]:
            if name in found:
                self.problem(found[name], f"'{name}' does not go with '{kind}'", "remove it")
        return InputConfig(kind=kind, paths=self._read_from(kind, found[kind]), **_only_given(self._described(found, kind)))

    def _described(self, found: Mapping[str, Node], kind: keys.Kind) -> dict[str, Any]:
        """All of an input beside what is read."""
        nodes = self.nodes
        read = {
            "exclude": lambda node: tuple(self.patterns(node, "a pattern", names=True)),
            "journal": lambda node: self.path(node, "a folder"),
            "format": lambda node: nodes.choice(node, keys.FORMATS, "'format'"),
            "from": lambda node: nodes.choice(node, ("start", "end"), "'from'"),
            "role": lambda node: nodes.choice(node, ("source", "destination", "snapshot"), "'role'"),
            "name": self._name,
            "attributes": lambda node: self._attributes(node, "'attributes'"),
            "idle_timeout": lambda node: self.positive(node, nodes.duration(node)),
            "qemu_version": nodes.version,
            "clock": self._clock,
        }
        fields = {"from": "start", "idle_timeout": "idle_timeout_ns"}
        described = {fields.get(name, name): take(found[name]) for name, take in read.items() if name in found}
        return {"format": "journald"} | described if kind == "journald" else described

    def _read_from(self, kind: keys.Kind, node: Node) -> tuple[str, ...]:
        if kind == "files":
            patterns = self.patterns(node, "a pattern of files")
            if node.kind == "list" and not node.items:
                self.problem(node, "'files' names no file", "for example /var/log/libvirt/qemu/*.log")
            return tuple(patterns)
        if kind == "pipe":
            path = self.path(node, "the path of a pipe")
            return (str(path),) if path is not None else ()
        matches = [(one, self.word(one, "a match")) for one in self.nodes.some(node, "'journald'")]
        for one, text in matches:
            if text and not _MATCH.fullmatch(text):
                self.problem(one, f"'{text}' is no match", "FIELD=value, for example SYSLOG_IDENTIFIER=qemu-system-x86_64")
        if not matches:
            self.problem(node, "'journald' names no entries", "for example [SYSLOG_IDENTIFIER=qemu-system-x86_64]")
        return tuple(text for _, text in matches)

    def _name(self, node: Node) -> str:
        pattern = self.word(node, "a pattern")
        wrong = problem_of(pattern) if pattern else None
        if wrong is not None:
            self.problem(node, *wrong)
        return pattern

    def _clock(self, node: Node) -> Path | None:
        path = self.path(node, "a file")
        if path is not None:
            try:
                read_clock(path)
            except UsageError as error:
                self.problem(node, "the clock file cannot be used", str(error).removesuffix(" Nothing was converted."))
        return path

    def _readable(self, node: Node | None) -> Path | None:
        path = self.path(node, "a file") if node is not None else None
        if node is not None and path is not None:
            self.check_readable(node, path)
        return path

    def paths(self, node: Node, what: str) -> Iterator[Path]:
        """Files, or folders, that must be there."""
        for one in self.nodes.some(node, what):
            path = self.path(one, what)
            if path is not None:
                self.check_readable(one, path)
                yield path

    def patterns(self, node: Node, what: str, *, names: bool = False) -> Iterator[str]:
        """Patterns of absolute paths; with `names` one without a slash is a pattern of names in any folder."""
        for one in self.nodes.some(node, what):
            text = self.word(one, what)
            if text:
                bare = text.startswith("/") or (names and "/" not in text)
                yield text if bare else os.path.join(glob.escape(str(self.folder)), text)  # noqa: PTH118  # no path yet

    def _attributes(self, node: Node | None, what: str) -> Attributes:
        found = []
        for key, value in self.nodes.entries(node, what):
            if not key.text:
                self.problem(key, "an attribute has no name", "write one")
            if value.kind != "null":
                found.append((key.text, self.nodes.text(value, "a text")))
        return tuple(found)

    def _outbox(self, found: Mapping[str, Node], root: Node) -> OutboxConfig:
        outbox = self._section(found, "outbox", keys.OUTBOX)
        folder = self.path(outbox["folder"], "a folder") if "folder" in outbox else state_folder(self._env)
        if folder is None and "folder" not in outbox:
            self.problem(found.get("outbox", root), "the outbox has no folder", NO_STATE_FOLDER)
        given = {
            "limit_bytes": self.positive(outbox["limit"], self.nodes.size(outbox["limit"])) if "limit" in outbox else None,
            "rejected_limit_bytes": self.nodes.size(outbox["rejected_limit"]) if "rejected_limit" in outbox else None,
        }
        return OutboxConfig(folder or Path(), **_only_given(given))

    def _telemetry(self, found: Mapping[str, Node], destinations: tuple[DestinationConfig, ...]) -> TelemetryConfig:
        telemetry = self._section(found, "telemetry", keys.TELEMETRY)
        signals = {one.name: tuple(one.endpoints) for one in destinations} or {ENVIRONMENT: SIGNALS}
        name = None
        if "destination" in telemetry:
            node = telemetry["destination"]
            name = self.word(node, "the name of a destination")
            if name and name not in signals:
                self.problem(node, f"there is no destination '{name}'", did_you_mean(name, list(signals)))
            elif name and signals[name] == ("traces",):
                self.problem(
                    node, f"the destination '{name}' takes no metrics", "add 'metrics' to its 'signals', or name another"
                )
        interval = telemetry.get("interval")
        given = {"interval_ns": self.positive(interval, self.nodes.duration(interval)) if interval is not None else None}
        return TelemetryConfig(name, **_only_given(given))

    def _health(self, node: Node | None) -> HealthConfig:
        if node is not None and node.kind != "map" and node.text == "none":
            return HealthConfig(None)
        address = self.table(node, keys.HEALTH, "'health'").get("address") if node is not None else None
        if address is None:
            return HealthConfig()
        text = self.word(address, "an address")
        found = _ADDRESS.fullmatch(text)
        if text == "none":
            return HealthConfig(None)
        if found is None or int(found["port"]) > _MAX_PORT:
            if text:
                repair = "HOST:PORT, for example 127.0.0.1:13133, or 0.0.0.0:13133 for all of the host's addresses"
                self.problem(address, f"'{text}' is no address to listen on", repair)
            return HealthConfig()
        return HealthConfig(found["v6"] or found["host"], int(found["port"]))

    def _log(self, found: Mapping[str, Node]) -> LogConfig:
        log = self._section(found, "log", keys.LOG)
        words = {"format": ("text", "json"), "level": ("debug", "info", "warning", "error")}
        return LogConfig(**_only_given({name: self.nodes.choice(node, words[name], f"'{name}'") for name, node in log.items()}))

    def _destinations(self, node: Node | None) -> tuple[DestinationConfig, ...]:
        return tuple(DestinationReader(self.nodes, self.folder).destinations(node))


def _only_given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was given; the rest is left to the defaults of the types."""
    return {name: value for name, value in fields.items() if value is not None}
