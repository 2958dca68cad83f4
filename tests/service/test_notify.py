"""What systemd hears over its socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelbridge.service.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket that systemd would listen on, and what it would write into NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@otelbridge-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(5)
        yield listener, name


def has_more(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        return bool(listener.recv(4096))
    except BlockingIOError:
        return False


def test_systemd_hears_what_happens(systemd: tuple[socket.socket, str]) -> None:
    listener, name = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name}, now_ns=lambda: 12_345_678)
    notifier.ready()
    notifier.status("follows 3 files\nand more")
    notifier.reloading()
    notifier.ready()
    notifier.stopping()
    notifier.watchdog()
    assert [listener.recv(4096) for _ in range(5)] == [
        b"READY=1",
        b"STATUS=follows 3 files and more",
        b"RELOADING=1\nMONOTONIC_USEC=12345",
        b"READY=1",
        b"STOPPING=1",
    ]
    assert not has_more(listener)


def test_the_watchdog_hears_every_quarter_of_its_limit(systemd: tuple[socket.socket, str]) -> None:
    listener, name = systemd
    clock_ns = [0]
    env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "77"}
    notifier = Notifier(env, pid=77, now_ns=lambda: clock_ns[0])
    assert notifier.beat_ns == 2_500_000_000
    for second in range(16):
        clock_ns[0] = second * 1_000_000_000
        notifier.watchdog()
    assert [listener.recv(4096) for _ in range(6)] == [b"WATCHDOG=1"] * 6
    assert not has_more(listener)


@pytest.mark.parametrize(
    "watchdog",
    [
        {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "78"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_PID": "77"},
    ],
)
def test_a_watchdog_of_another_process_hears_nothing(systemd: tuple[socket.socket, str], watchdog: dict[str, str]) -> None:
    listener, name = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name, **watchdog}, pid=77)
    notifier.watchdog()
    assert notifier.beat_ns is None
    assert not has_more(listener)


def test_a_watchdog_without_a_process_is_ours(tmp_path: Path) -> None:
    assert Notifier({"NOTIFY_SOCKET": str(tmp_path), "WATCHDOG_USEC": "2000"}).beat_ns == 500_000


def test_without_systemd_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"WATCHDOG_USEC": "2000"})
    notifier.ready()
    notifier.watchdog()
    assert notifier.beat_ns is None
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["/nowhere/notify", "vsock:2:3", "/" + 200 * "x"])
def test_a_socket_that_takes_nothing_is_told_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    notifier.stopping()
    assert len(caplog.records) == 1
    assert name in caplog.text
