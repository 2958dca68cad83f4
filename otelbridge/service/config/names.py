"""What the name of a trace's file says of its QEMU, by a pattern such as `<namespace>_<vmi>.log`."""

from __future__ import annotations

import re
from functools import lru_cache

from otelbridge.mapping.source import did_you_mean
from otelbridge.pipeline.inputs import libvirt_attributes
from otelbridge.records import Attributes

ATTRIBUTES = {
    "domain": "qemu.domain.name",
    "uuid": "qemu.domain.uuid",
    "namespace": "k8s.namespace.name",
    "vmi": "kubevirt.vmi.name",
}
"""What stands between `<` and `>`, and the attribute that it becomes."""

# <namespace>_<vmi>.log
_PLACE = re.compile(r"<([^<>]*)>")
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"


def name_attributes(pattern: str, file_name: str) -> Attributes:
    """The attributes that a file's name gives, in the order of the pattern; none where the pattern does not fit.

    Args:
        pattern: As `name` has it in the configuration. A part ends where what follows it in the pattern first comes up, so
            `<namespace>_<vmi>.log` splits at the first `_`. Empty: `<domain>.log` in libvirt's folder, and nothing elsewhere.
        file_name: The file's path; a rotated file's is that of the file it once was. As many of its last parts are looked at
            as the pattern has.
    """
    if not pattern:
        return libvirt_attributes(file_name)
    tail = "/".join(file_name.rsplit("/", pattern.count("/") + 1)[-pattern.count("/") - 1 :])
    found = _compiled(pattern).fullmatch(tail)
    return () if found is None else tuple((ATTRIBUTES[place], value) for place, value in found.groupdict().items())


def problem_of(pattern: str) -> tuple[str, str] | None:
    """What is wrong with a pattern, and a repair."""
    places = _PLACE.findall(pattern)
    if not places:
        return f"'{pattern}' has no part to take out", f"put in one of {', '.join(f'<{place}>' for place in ATTRIBUTES)}"
    for number, place in enumerate(places):
        if place not in ATTRIBUTES:
            return f"<{place}> is nothing that a name can say", did_you_mean(place, list(ATTRIBUTES))
        if place in places[:number]:
            return f"<{place}> is in '{pattern}' twice", "remove one of the two"
    if "><" in pattern:
        return f"nothing tells where one part of '{pattern}' ends and the next begins", "put a character between '>' and '<'"
    return None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    literals_and_places = _PLACE.split(pattern)
    parts = [re.escape(literals_and_places[0])]
    for place, literal in zip(literals_and_places[1::2], literals_and_places[2::2], strict=True):
        parts.append(f"(?P<{place}>{_UUID if place == 'uuid' else '[^/]+?'}){re.escape(literal)}")
    return re.compile("".join(parts))
