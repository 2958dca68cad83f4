"""`otelbridge run`: the loop with everything around it, from the start to a clean end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import otelbridge
from otelbridge.errors import OtelbridgeError
from otelbridge.records import SECOND_NS
from otelbridge.service import log, notify
from otelbridge.service.config import ServiceConfig
from otelbridge.service.counters import Counters
from otelbridge.service.health import HealthServer
from otelbridge.service.outbox import ServiceOutbox
from otelbridge.service.senders import Senders
from otelbridge.service.service import Service
from otelbridge.service.telemetry import Telemetry

WATCH_S = 2.0
"""How often the files of the configuration are looked at for a change."""
_log = logging.getLogger(__name__)


def serve(config: ServiceConfig, load: Callable[[], ServiceConfig]) -> None:
    """Run until SIGTERM or SIGINT; then everything is delivered or in the outbox.

    Args:
        config: What to do.
        load: Reads the configuration anew, for a reload.

    Raises:
        OtelbridgeError: It cannot begin: the mappings, the outbox or the health server's address.
        KeyboardInterrupt: It was interrupted, and has ended cleanly.
    """
    log.set_up(config.log)
    with ExitStack() as stack:
        asked = stack.enter_context(_signals())
        counters = Counters()
        outbox = ServiceOutbox(
            config.outbox.folder,
            limit_bytes=config.outbox.limit_bytes,
            rejected_limit_bytes=config.outbox.rejected_limit_bytes,
        )
        stack.callback(outbox.close)
        counters.restore(outbox.states().get("counters"))
        senders = Senders(outbox, config.destinations, counters.add)
        service = Service(config, outbox, senders, counters, asked.wake)
        health = stack.enter_context(_health(config, service, counters))
        telemetry = Telemetry(config, counters)
        stack.callback(telemetry.close)
        senders.start()
        _log.info("Started. version=%s inputs=%d", otelbridge.__version__, len(config.inputs))
        notify.ready()
        _loop(service, health, asked, _Watch(config), load)
        notify.stopping()
        service.end(time.monotonic() + config.grace_ns / SECOND_NS)
        _log.info("Stopped. %s", outbox.words)
    if asked.interrupted:
        raise KeyboardInterrupt
