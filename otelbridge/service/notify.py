"""What systemd is told: that the service is ready, reloads, ends, lives.

Source: systemd's sd_notify(3) and sd_watchdog_enabled(3).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

_SEND_LIMIT_S = 1.0
_log = logging.getLogger(__name__)


class Notifier:
    """Tells whoever started the service, and nobody where `NOTIFY_SOCKET` is not set.

    Args:
        env: The environment that the service was started with.
        pid: Of the service's process; a watchdog that was set for another one is not ours.
        now_ns: CLOCK_MONOTONIC.
    """

    def __init__(
        self, env: Mapping[str, str], *, pid: int | None = None, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        self._now_ns = now_ns
        self._has_told = False
        self._beaten_ns: int | None = None
        self.beat_ns = _beat_ns(env, os.getpid() if pid is None else pid) if self._address else None
        """How often the watchdog hears from us: a quarter of its time-out, in ns; None where there is none."""

    def ready(self) -> None:
        """The start is done, or a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        # Type=notify-reload needs the moment, so that it can tell this reload from one before.
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._now_ns() // 1_000}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def watchdog(self) -> None:
        """Say that we live, if it is time to; to be called by the main loop at least every `beat_ns`."""
        now_ns = self._now_ns()
        if self.beat_ns is None or (self._beaten_ns is not None and now_ns - self._beaten_ns < self.beat_ns):
            return
        self._beaten_ns = now_ns
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_LIMIT_S)
                sender.sendto("\n".join(lines).encode("utf-8", "replace"), _path(self._address))
        except (OSError, ValueError) as error:
            if not self._has_told:
                _log.warning("NOTIFY_SOCKET=%s does not take messages (%s); systemd hears nothing.", self._address, error)
            self._has_told = True


def _path(address: str) -> str:
    """The name of the socket as the kernel has it: `@name` stands for one in the abstract namespace.

    Raises:
        ValueError: It is neither such a name nor a path.
    """
    if address[0] not in "@/":
        raise ValueError("expected a path or @name")
    return "\0" + address[1:] if address[0] == "@" else address


def _beat_ns(env: Mapping[str, str], pid: int) -> int | None:
    """A quarter of the watchdog's time-out, None where there is none or it waits for another process.

    The half that systemd advises is for who calls to the moment: a loop that comes by twice a second would be late.
    """
    limit_us = env.get("WATCHDOG_USEC", "")
    if not (limit_us.isascii() and limit_us.isdigit() and int(limit_us)) or env.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(limit_us) * 1_000 // 4
