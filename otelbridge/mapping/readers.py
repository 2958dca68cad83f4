"""What reads the parts of one file; the readers of its rules are made of these."""

from __future__ import annotations

from typing import NamedTuple

from otelbridge.mapping.attributes import AttributeReader
from otelbridge.mapping.binding import Binder
from otelbridge.mapping.events import EventReader
from otelbridge.mapping.instruments import InstrumentReader
from otelbridge.mapping.nodes import NodeReader
from otelbridge.records import Scope


class FileReaders(NamedTuple):
    """The readers of one file, with its path and its scope."""

    path: str
    scope: Scope
    nodes: NodeReader
    binder: Binder
    attributes: AttributeReader
    events: EventReader
    instruments: InstrumentReader
