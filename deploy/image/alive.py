#!/opt/otelbridge/bin/python -S
"""Asks a service in the same container for /healthz: `otelbridge-alive [HOST:PORT]`. Ends with 0 if all is well.

The image has no curl, and http.client would take longer to import than the answer takes to come.
"""

import socket
import sys

LIMIT_S = 4.0
"""Below the time-out of HEALTHCHECK, so that the reason is heard."""


def main() -> str | None:
    """Nothing, or why the service does not count as alive."""
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:13133"
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), port), LIMIT_S) as asked:
            asked.sendall(f"GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
            answer = asked.makefile("rb").readline().decode("latin-1").strip()
    except OSError as error:
        return f"http://{address}/healthz does not answer ({error})."
    return None if answer.split(" ")[1:2] == ["200"] else f"http://{address}/healthz answers {answer!r}, expected 200."


if __name__ == "__main__":
    sys.exit(main())
