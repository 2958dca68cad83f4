"""Which trace events to switch on in QEMU for a mapping, in the forms in which QEMU and libvirt take them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence

from otelbridge.catalogue.hot import COSTLY, hot_events
from otelbridge.mapping.rules import Mapping
from otelbridge.mapping.uses import uses_of


def events_to_switch_on(mapping: Mapping, known: Collection[str]) -> list[str]:
    """The events that rules use, of those that a QEMU has; by name."""
    return sorted(uses_of(mapping).keys() & set(known))


def is_costly(event: str) -> bool:
    """Whether the event comes for every page, field or packet."""
    hot = hot_events().get(event)
    return hot is not None and hot.kind in COSTLY


def _events_file(events: Sequence[str]) -> list[str]:
    """QEMU's `-trace events=FILE`: a name a line."""
    return list(events)


def _qmp(events: Sequence[str]) -> list[str]:
    """A command a line, for a QMP session whose capabilities are negotiated. What a build left out is no error."""
    return [
        json.dumps(
            {"execute": "trace-event-set-state", "arguments": {"name": event, "enable": True, "ignore-unavailable": True}}
        )
        for event in events
    ]


def _libvirt(events: Sequence[str]) -> list[str]:
    """The element of a domain's XML. libvirt adds `-msg timestamp=on` by itself."""
    arguments = [f"  <qemu:arg value='-trace'/> <qemu:arg value='enable={event}'/>" for event in events]
    opening = "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
    return [opening, *arguments, "</qemu:commandline>"]


def _hmp(events: Sequence[str]) -> list[str]:
    """A command a line for the human monitor."""
    return [f"trace-event {event} on" for event in events]


def _virsh(events: Sequence[str]) -> list[str]:
    """A shell command a line for a running domain, whose name is in the variable DOMAIN."""
    return [f"virsh qemu-monitor-command --hmp \"$DOMAIN\" '{command}'" for command in _hmp(events)]


FORMS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "events-file": _events_file,
    "qmp": _qmp,
    "libvirt": _libvirt,
    "virsh": _virsh,
    "hmp": _hmp,
}
"""The lines of each form."""
