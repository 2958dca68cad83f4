"""`otelbridge run`: the loop with everything around it, from the start to a clean end."""

from __future__ import annotations

import logging
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

import otelbridge
from otelbridge.errors import LocatedError, OtelbridgeError
from otelbridge.records import SECOND_NS
from otelbridge.service import memory
from otelbridge.service.config import ServiceConfig
from otelbridge.service.counters import Counters
from otelbridge.service.health import HealthServer
from otelbridge.service.log import ServiceLog, fields, set_up
from otelbridge.service.notify import Notifier
from otelbridge.service.outbox import ServiceOutbox
from otelbridge.service.senders import Senders, secrets_of
from otelbridge.service.service import SCAN_S, Service
from otelbridge.service.telemetry import SelfTelemetry
from otelbridge.stats import STATS

HISTOGRAMS = frozenset(stat.name for stat in STATS if stat.kind == "histogram")
WATCH_S = 2.0
"""How often the files of the configuration are looked at for a change."""
_STATUS_S = 10.0
_GIVE_BACK_S = 60.0
_PROBLEMS_TOLD = 20
_ENDS = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask for the end."""
_ONLY_AT_START = ("outbox", "health")
"""Sections of the configuration that hold what cannot change while the service runs."""
_log = logging.getLogger(__name__)


class Asked:
    """What signals have asked for; `wake` becomes readable with each."""

    def __init__(self) -> None:
        self.wake, self._other_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.stop = self.reload = False
        self.interrupted = False

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Note what is asked; the loop does it."""
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.stop, self.interrupted = True, number == signal.SIGINT
            # Who asks once more, or a thousand times, must neither make it a hard end nor keep it from coming to one.
            for again in _ENDS:
                signal.signal(again, signal.SIG_IGN)
        # One that is full wakes the loop as well.
        with suppress(BlockingIOError):
            os.write(self._other_end, b"!")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals until the end."""
        before = {number: signal.signal(number, self.on_signal) for number in (*_ENDS, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if self.stop else handler)
            os.close(self.wake)
            os.close(self._other_end)


def serve(config: ServiceConfig, load: Callable[[], ServiceConfig], env: Mapping[str, str]) -> None:
    """Run until SIGTERM or SIGINT; then everything is delivered or in the outbox.

    Args:
        config: What to do.
        load: Reads the configuration anew, for a reload.
        env: The environment.

    Raises:
        OtelbridgeError: It cannot begin: the mappings, the outbox or the health server's address.
        KeyboardInterrupt: SIGINT has ended it, as cleanly.
    """
    memory.bound()
    asked = Asked()
    with ExitStack() as stack:
        stack.enter_context(asked.listening())
        log = set_up(config.log)
        stack.callback(log.close)
        log.hide(_secrets(config))
        counters = Counters(str(uuid.uuid4()), time.time_ns())

        def count(name: str, number: float, by: Mapping[str, str]) -> None:
            (counters.record if name in HISTOGRAMS else counters.add)(name, number, **by)

        outbox = ServiceOutbox(
            config.outbox.folder,
            limit_bytes=config.outbox.limit_bytes,
            rejected_limit_bytes=config.outbox.rejected_limit_bytes,
            count=count,
        )
        stack.callback(outbox.close)
        senders = Senders(outbox, config.destinations, count)
        service = Service(config, outbox, senders, counters, asked.wake)
        telemetry = SelfTelemetry(config, counters)
        health = None
        if config.health.host is not None:
            health = stack.enter_context(
                HealthServer(config.health.host, config.health.port, service.status, service.unready, telemetry.page)
            )
        _log.info(
            "Started.",
            extra=fields(
                version=otelbridge.__version__,
                config=str(config.source or ""),
                health=f"{config.health.host}:{health.port}" if health else "none",
            ),
        )
        _Loop(service, health, telemetry, log, asked, Notifier(env), _Watch(config)).run(load)
    if asked.interrupted:
        raise KeyboardInterrupt


class _Loop:
    """The loop of the service with its heartbeat, its reloads and its end."""

    def __init__(
        self, service: Service, health: HealthServer | None, telemetry: SelfTelemetry, log: ServiceLog, asked: Asked,
        notifier: Notifier, watch: _Watch,
    ) -> None:  # fmt: skip
        self._service, self._health, self._telemetry, self._log = service, health, telemetry, log
        self._asked, self._notifier, self._watch = asked, notifier, watch
        self._longest_s = SCAN_S if notifier.beat_ns is None else min(SCAN_S, notifier.beat_ns / SECOND_NS)
        self._told_s = 0.0
        self._given_back_s = time.monotonic()

    def run(self, load: Callable[[], ServiceConfig]) -> None:
        self._notifier.ready()
        while not self._asked.stop:
            self._beat()
            if self._asked.reload or self._watch.has_changed(time.monotonic()):
                self._asked.reload = False
                self._reload(load)
            self._service.step(self._longest_s)
        self._notifier.stopping()
        deadline_s = time.monotonic() + self._service.config.grace_ns / SECOND_NS
        _log.info("Stopping: what has come is delivered or put into the outbox.")
        self._service.end(deadline_s)
        self._telemetry.shutdown(deadline_s)
        _log.info("Stopped.", extra=fields(outbox=self._service.words))

    def _beat(self) -> None:
        if self._health is not None:
            self._health.beat()
        self._notifier.watchdog()
        now_s = time.monotonic()
        if now_s - self._told_s >= _STATUS_S:
            self._told_s = now_s
            self._log.tick()
            self._notifier.status(self._service.words)
        if now_s - self._given_back_s >= _GIVE_BACK_S:
            self._given_back_s = now_s
            memory.give_back()

    def _reload(self, load: Callable[[], ServiceConfig]) -> None:
        self._notifier.reloading()
        self._watch.look()
        before = self._service.config
        try:
            config = load()
            self._log.hide(_secrets(config))
            self._service.reload(config)
        except OtelbridgeError as error:
            self._service.reload_refused()
            _tell_refused(error)
        else:
            self._telemetry.update(config)
            self._watch.follow(config)
            self._log.follow(config.log)
            _log.info("The configuration was read again and is in force.")
            for section in _ONLY_AT_START:
                if getattr(config, section) != getattr(before, section):
                    _log.warning("A change under '%s' counts only from the next start on; restart the service for it.", section)
        self._notifier.ready()


def _tell_refused(error: OtelbridgeError) -> None:
    """Say what is wrong, a line for each problem."""
    problems = error.problems if isinstance(error, LocatedError) else ()
    words = f"problems={len(problems)}" if problems else str(error)
    _log.error("The changed configuration was not taken; the one before stays in force. %s", words)
    for problem in problems[:_PROBLEMS_TOLD]:
        place = f"{problem.location.path}:{problem.location.line}:{problem.location.column}"
        _log.error("%s: %s%s", place, problem.text, f"; {problem.help}" if problem.help else "")


class _Watch:
    """Sees changes of the files that a configuration was made from."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self.look()

    def look(self) -> None:
        """Take the files as they are now for known."""
        self._looked_s = time.monotonic()
        self._seen = self._look()

    def follow(self, config: ServiceConfig) -> None:
        """Watch the files of this configuration from now on."""
        self._config, known = config, self._seen
        self.look()
        # What has changed while it was read is still a change.
        self._seen |= {path: about for path, about in known.items() if path in self._seen}

    def has_changed(self, now_s: float) -> bool:
        """Whether any of them is another than when this was last said."""
        if now_s - self._looked_s < WATCH_S:
            return False
        self._looked_s = now_s
        seen = self._look()
        changed, self._seen = seen != self._seen, seen
        return changed

    def _look(self) -> dict[str, tuple[int, int]]:
        config = self._config
        secrets = [path for destination in config.destinations for path in destination.files]
        roots = [path for path in (config.source, config.catalogue, *config.mappings, *secrets) if path is not None]
        found = {}
        for root in roots:
            for path in [root, *(sorted(root.glob("*.yaml")) if root.is_dir() else ())]:
                try:
                    about = path.stat()
                except OSError:
                    continue
                found[str(path)] = about.st_mtime_ns, about.st_ino
        return found


def _secrets(config: ServiceConfig) -> list[str]:
    """What must not stand in any message, whoever writes it."""
    return [
        secret
        for destination in config.destinations
        for endpoint in destination.endpoints.values()
        for secret in secrets_of(endpoint)
    ]
