"""What systemd hears of the service, on a real socket."""

from __future__ import annotations

import itertools
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.receiver import Receiver
from tests.service.living import log_in
from tests.service.running import config_for, running, until


class Systemd:
    """Collects the messages of a service, with the moment of their arrival in CLOCK_MONOTONIC."""

    def __init__(self, heard: socket.socket) -> None:
        self._socket = heard
        self.messages: list[tuple[dict[str, str], int]] = []

    def listen(self) -> None:
        """Take what has come."""
        while True:
            try:
                text = self._socket.recv(4096).decode()
            except BlockingIOError:
                return
            self.messages.append((dict(line.split("=", 1) for line in text.split("\n")), time.monotonic_ns() // 1000))

    def said(self, name: str) -> list[str]:
        """The values of a field so far, in their order."""
        self.listen()
        return [message[name] for message, _ in self.messages if name in message]

    @property
    def order(self) -> list[str]:
        """Which changes of state were told."""
        self.listen()
        states = ("READY", "RELOADING", "STOPPING")
        return [name for message, _ in self.messages for name in states if name in message]


@contextmanager
def systemd(folder: Path) -> Iterator[tuple[Systemd, str]]:
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as heard:
        heard.bind(address)
        yield Systemd(heard), address


def test_systemd_hears_of_a_life_from_the_start_to_the_end(tmp_path: Path) -> None:
    log_in(tmp_path)
    with (
        systemd(tmp_path) as (told, address),
        Receiver() as receiver,
        running(tmp_path, config_for(tmp_path, receiver), start=False, NOTIFY_SOCKET=address) as service,
    ):
        service.start()
        until(lambda: told.order == ["READY"])
        until(lambda: told.said("STATUS"))
        assert "1 streams followed" in told.said("STATUS")[-1]
        before_us = time.monotonic_ns() // 1000
        service.send(signal.SIGHUP)
        until(lambda: told.order == ["READY", "RELOADING", "READY"])
        (moment,) = told.said("MONOTONIC_USEC")
        assert before_us <= int(moment) <= time.monotonic_ns() // 1000
        assert "WATCHDOG" not in {name for message, _ in told.messages for name in message}
        assert service.stop() == 0
        assert told.order == ["READY", "RELOADING", "READY", "STOPPING"]


def test_a_reload_that_is_refused_is_over_for_systemd_too(tmp_path: Path) -> None:
    with (
        systemd(tmp_path) as (told, address),
        running(tmp_path, config_for(tmp_path, "http://127.0.0.1:9"), start=False, NOTIFY_SOCKET=address) as service,
    ):
        service.start()
        service.write_config(nonsense=1)
        service.send(signal.SIGHUP)
        until(lambda: told.order == ["READY", "RELOADING", "READY"])
        assert "stays in force" in service.log


def test_the_watchdog_hears_that_the_service_lives_while_it_has_nothing_to_do(tmp_path: Path) -> None:
    with (
        systemd(tmp_path) as (told, address),
        running(
            tmp_path, config_for(tmp_path, "http://127.0.0.1:9"), start=False, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000"
        ) as service,
    ):
        service.start()
        until(lambda: len(told.said("WATCHDOG")) >= 4)
        moments = [moment for message, moment in told.messages if "WATCHDOG" in message]
        assert max(later - before for before, later in itertools.pairwise(moments)) < 1_000_000
        assert service.stop() == 0
