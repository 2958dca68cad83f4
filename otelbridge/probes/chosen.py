"""Which probes of a QEMU to look at, how each declares its arguments, and which are added up where they happen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from otelbridge.catalogue import Catalogue
from otelbridge.catalogue.printf import integer_type
from otelbridge.catalogue.versions import between
from otelbridge.records import EventSpec, Plan

Sizes = Sequence[tuple[int, ...]]


class Probe(NamedTuple):
    """A probe to look at.

    Attributes:
        spec: How it is declared.
        summed: None where every event is printed; else the arguments to sum, which may be none.
    """

    spec: EventSpec
    summed: tuple[str, ...] | None


class Chosen(NamedTuple):
    """The probes, and the events that the program does not have, or has with arguments of no known declaration."""

    probes: tuple[Probe, ...]
    absent: tuple[str, ...]
    other: tuple[str, ...]


def choose(events: Iterable[str], plan: Plan, catalogue: Catalogue, there: Mapping[str, Sizes], version: str | None) -> Chosen:
    """The probes for these events, by what the program has.

    Args:
        events: What the rules use.
        plan: What is needed of them.
        catalogue: How they are declared.
        there: The probes of the program, as `sdt_probes` gives them.
        version: One of VERSIONS where the user has told it.
    """
    probes, absent, other = [], [], []
    for event in events:
        sizes = there.get(event)
        if sizes is None:
            absent.append(event)
            continue
        spec = next((spec for spec in catalogue.variants(event) if _is_of(spec, version) and _fits(spec, sizes)), None)
        if spec is None:
            other.append(event)
        else:
            probes.append(Probe(spec, _summed(spec, plan)))
    return Chosen(tuple(probes), tuple(absent), tuple(other))


def _is_of(spec: EventSpec, version: str | None) -> bool:
    return version is None or bool(between(spec.first, spec.last) & between(version, version))


def _fits(spec: EventSpec, sizes: Sizes) -> bool:
    declared = tuple(max(1, integer_type(argument.ctype)[0] // 8) for argument in spec.arguments)
    return all(found == declared for found in sizes)


def _summed(spec: EventSpec, plan: Plan) -> tuple[str, ...] | None:
    if spec.name in plan.rows:
        return None
    has = {argument.name for argument in spec.arguments}
    return tuple(name for name in plan.sums.get(spec.name, ()) if name in has)
