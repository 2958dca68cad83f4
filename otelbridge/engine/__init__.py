"""Pairing, state machines, nesting, metrics, accounting: no I/O and no clock."""

from otelbridge.engine.engine import Engine
from otelbridge.engine.machines import Join
from otelbridge.engine.outlet import Accounting, Stream
from otelbridge.engine.pairs import LinkIndex

__all__ = ["Accounting", "Engine", "Join", "LinkIndex", "Stream"]
