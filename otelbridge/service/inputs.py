"""All inputs of the service: what is found by their patterns, each followed with its stream."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from otelbridge.catalogue import builtin
from otelbridge.mapping import File, compile_mappings
from otelbridge.pipeline.options import ConvertOptions, told_of
from otelbridge.records import Attributes
from otelbridge.service.config import InputConfig, ServiceConfig
from otelbridge.service.config.names import name_attributes
from otelbridge.service.flows import Flow, Followed, Nothing, Saved, keys_of, saved_flows
from otelbridge.service.follow import Files
from otelbridge.service.streams import Kind, Output

if TYPE_CHECKING:
    from otelbridge.service.follow.pipes import FollowedPipe

_log = logging.getLogger(__name__)
_NO_PIPES: Mapping[str, FollowedPipe] = MappingProxyType({})
LOOKED = "looked"
"""The key of the state that tells when everything was looked at last."""
_UNUSABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What a state of another version comes to."""


def kinds_of(config: ServiceConfig, files: Sequence[File]) -> list[Kind]:
    """What the streams of each input share.

    Raises:
        OtelbridgeError: The mappings or the catalogue are not as they should be.
    """
    notes: list[str] = []
    found = []
    mapping = None
    for one in config.inputs:
        options = ConvertOptions((), catalogue=config.catalogue, qemu_version=one.qemu_version, clock=one.clock)
        told = told_of(options, notes)
        mapping = mapping or compile_mappings(files, told.catalogue)
        found.append(Kind(told, mapping, config.resource, one.format, one.role, one.idle_timeout_ns))
    if not config.inputs:
        compile_mappings(files, builtin())
    for note in dict.fromkeys(notes):
        _log.warning("%s", note)
    return found


class Inputs:
    """Follows everything that the inputs of a configuration name.

    Attributes:
        flows: What is followed now, by its path (or what stands for it).
        forgotten: Keys of the states that belong to nothing that is followed.
        left: What was open in those, as incomplete.

    Args:
        config: The configuration.
        kinds: What `kinds_of` gives for it.
        states: What `Flow.save` gave earlier, by key, and `looked` under that key.
        now_s: The monotonic clock.
        kinds_before: The kinds that they were read by until now.
        pipes: What `take_pipes` gave of those, by path. The ones that are still named are followed on, the others closed.
    """

    def __init__(
        self, config: ServiceConfig, kinds: Sequence[Kind], states: Mapping[str, bytes], now_s: float,
        kinds_before: Sequence[Kind], pipes: Mapping[str, FollowedPipe] = _NO_PIPES,
    ) -> None:  # fmt: skip
        self._config = config
        unclaimed = dict(pipes)
        self._before = dict(zip(map(id, kinds), kinds_before, strict=True))
        self._saved = saved_flows(states)
        self.flows: dict[str, Flow] = {}
        self._files: list[tuple[InputConfig, Kind, Files]] = []
        self._refused: set[str] = set()
        positions = {path: saved.position for path, saved in self._saved.items()}
        for one, kind in zip(config.inputs, kinds, strict=True):
            if one.kind == "files":
                looked_ns = _last_look_ns(one.paths, states.get(LOOKED), positions)
                files = Files(one.paths, one.exclude, one.start, positions, looked_ns=looked_ns)
                self._files.append((one, kind, files))
            else:
                self._follow_other(one, kind, positions, now_s, unclaimed)
        for pipe in unclaimed.values():
            pipe.close()
        self.scan(now_s)
        for one, _, files in self._files:
            if not files.streams:
                _log.warning("No file is there yet that matches %s; waiting for one.", " or ".join(map(repr, one.paths)))
        forgotten = [path for path in self._saved if path not in self.flows]
        self.forgotten = [key for path in forgotten for key in keys_of(path, self._saved[path])]
        self.left = [
            output for path in forgotten if kinds for output in _left(path, kinds[0], kinds_before[0], self._saved[path])
        ]
        self._saved.clear()

    def _follow_other(
        self, one: InputConfig, kind: Kind, positions: Mapping[str, Mapping[str, Any]], now_s: float,
        pipes: dict[str, FollowedPipe],
    ) -> None:  # fmt: skip
        """A pipe, taken out of `pipes` where it is open already, or the journal."""
        from otelbridge.service.follow.pipes import FollowedJournal, FollowedPipe  # noqa: PLC0415  # most inputs are files

        if one.kind == "pipe":
            for path in one.paths:
                self._add(path, one, kind, pipes.pop(path) if path in pipes else FollowedPipe(path), now_s)
        else:
            path = "journald:" + " ".join(one.paths)
            self._add(path, one, kind, FollowedJournal(one.paths, one.journal, one.start, positions.get(path, {})), now_s)

    def scan(self, now_s: float) -> None:
        """Look for new files."""
        for one, kind, files in self._files:
            files.scan()
            for path, source in files.streams.items():
                if path not in self.flows:
                    self._add(path, one, kind, source, now_s)

    def _add(self, path: str, one: InputConfig, kind: Kind, source: Followed, now_s: float) -> None:
        if len(self.flows) >= self._config.max_streams:
            if path not in self._refused:
                self._refused.add(path)
                _log.error(
                    "%s is not followed: %d streams are, and no more may be. Raise limits.streams.", path, len(self.flows)
                )
            return
        saved = self._saved.get(path)
        attributes = _attributes(path, one)
        try:
            flow = Flow(path, kind, source, attributes, one.idle_timeout_ns, now_s, saved, self._before[id(kind)])
        except _UNUSABLE as error:
            # It was written by another version: what was open is lost, what was read is not read again.
            _log.error("%s: what was kept of it cannot be used (%s); it goes on without what was open in it.", path, error)
            flow = Flow(path, kind, source, attributes, one.idle_timeout_ns, now_s)
        self.flows[path] = flow

    @property
    def problems(self) -> Iterator[str]:
        """What cannot be followed, in words."""
        for _, _, files in self._files:
            yield from files.problems
        yield from (f"{path} is not followed: too many streams." for path in sorted(self._refused))

    @property
    def unreadable(self) -> Iterator[str]:
        """The folders that cannot be looked into, in words, and all that is followed if not one of it can be read."""
        for _, _, files in self._files:
            yield from files.unreadable
        refused = [flow.source.problem for flow in self.flows.values() if flow.source.problem]
        if len(refused) == len(self.flows):
            yield from refused

    def forget(self, path: str) -> None:
        """Follow it no longer."""
        self.flows.pop(path).close()
        for _, _, files in self._files:
            if path in files.streams:
                files.forget(path)

    def dirty(self) -> dict[str, bytes | None]:
        """The states that have changed since the last call, by key. Take the outputs away first."""
        return {key: body for flow in self.flows.values() if flow.is_dirty for key, body in flow.save().items()}

    def all(self) -> dict[str, bytes | None]:
        """The states of everything, by key. Take the outputs away first."""
        return {key: body for flow in self.flows.values() for key, body in flow.save(whole=True).items()}

    def take_pipes(self) -> dict[str, FollowedPipe]:
        """The pipes, by path, which `close` leaves open then: what their writers write meanwhile would be lost."""
        from otelbridge.service.follow.pipes import FollowedPipe  # noqa: PLC0415  # most inputs are files

        found = {}
        for path, flow in self.flows.items():
            if isinstance(flow.source, FollowedPipe):
                found[path], flow.source = flow.source, Nothing()
        return found

    def close(self) -> None:
        """Let go of everything."""
        for flow in self.flows.values():
            flow.close()


def looked(inputs: Sequence[InputConfig]) -> bytes:
    """The state of the key `LOOKED`: the inputs were looked at just now."""
    return json.dumps({"time_ns": time.time_ns(), "paths": [one.paths for one in inputs]}).encode()


def _last_look_ns(paths: Sequence[str], kept: bytes | None, positions: Mapping[str, Mapping[str, Any]]) -> int | None:
    """When these paths were looked at last, None if never; without a state, when one of the files was written to last."""
    now_ns = time.time_ns()
    try:
        state = json.loads(kept or b"")
        found = [int(state["time_ns"])] if list(paths) in state["paths"] else []
    except _UNUSABLE:
        found = [int(position.get("mtime_ns", 0)) for position in positions.values()]
    # A time to come was told by a clock that has been set back since.
    return max((0 if ns > now_ns else ns for ns in found), default=None)


def _attributes(path: str, one: InputConfig) -> Attributes:
    """What the configuration and the file's name say of a stream."""
    named = name_attributes(one.name, path) if one.kind == "files" and one.name else ()
    return tuple({**dict(named), **dict(one.attributes)}.items())


def _left(path: str, kind: Kind, before: Kind, saved: Saved) -> list[Output]:
    """What was open in a stream that is no longer followed."""
    try:
        flow = Flow(path, kind, Nothing(), (), 0, 0.0, saved, before)
    except _UNUSABLE as error:
        _log.error("%s: what was kept of it cannot be used (%s); what was open in it is lost.", path, error)
        return []
    flow.end()
    return flow.take()
