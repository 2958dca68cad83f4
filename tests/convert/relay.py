"""A TCP relay that can die half-way and come back on the same port, as a receiver that is restarted does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST


class Relay:
    """Passes connections on to a receiver.

    Args:
        target: The receiver's URL.
        dies_after: So many bytes from clients later it resets all its connections and refuses new ones; None for never.
    """

    def __init__(self, target: str, *, dies_after: int | None = None) -> None:
        parts = urlsplit(target)
        self._scheme, self._target = parts.scheme, (str(parts.hostname), int(parts.port or 0))
        self._left = dies_after
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.died = threading.Event()
        """Set when it has died by itself."""

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"{self._scheme}://localhost:{self.port}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    def up(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Reset every connection and refuse new ones."""
        with self._lock:
            for end in ([self._listener] if self._listener else []) + self._connections:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    # Wakes the thread that waits at it, and unlike SHUT_RDWR sends no orderly end before the reset.
                    end.shutdown(socket.SHUT_RD)
                end.close()
            self._listener, self._connections = None, []

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._connections += [client, server]
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, origin: socket.socket, goal: socket.socket, is_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := origin.recv(1024):
                goal.sendall(data)
                if is_client and self._is_over(len(data)):
                    self.down()
                    self.died.set()
            with self._lock:
                goal.shutdown(socket.SHUT_RDWR)

    def _is_over(self, passed: int) -> bool:
        with self._lock:
            if self._left is None:
                return False
            self._left -= passed
            if self._left > 0:
                return False
            self._left = None
            return True
