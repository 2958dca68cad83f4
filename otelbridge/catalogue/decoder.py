"""Arguments of an event, by the declaration that fits, and the QEMU versions that still can have written it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otelbridge.catalogue.catalogue import Catalogue
from otelbridge.catalogue.printf import Decoder, text_form
from otelbridge.catalogue.versions import ALL, VERSIONS, between, range_text
from otelbridge.records import EventSpec, Value

_Form = tuple[int, Decoder]

_SHORT_BYTES = 48
"""Texts of no more than this come again and again: `ram, section_id 2 -> 1`. Longer ones hold addresses and amounts."""
_MAX_REMEMBERED = 256


class EventDecoder:
    """Decodes the events of one stream, which one version of QEMU wrote.

    What an event says of the version narrows the choice for later ones. An event that fits no declaration of the
    versions that are left is decoded by any that fits. Where several fit, the newest counts.

    Args:
        catalogue: The declarations.
        form: Gives for a declaration what tells how its events look, and their decoder; declarations that look the same
            are taken for one.
        qemu_version: One of VERSIONS where the user has told it.
    """

    def __init__(
        self, catalogue: Catalogue, form: Callable[[EventSpec], tuple[object, Decoder]], qemu_version: str | None
    ) -> None:
        self._catalogue = catalogue
        self._form = form
        self._told = qemu_version
        self._versions = between(qemu_version, qemu_version) if qemu_version else ALL
        self._forms: dict[str, list[_Form]] = {}
        self._only: dict[str, Decoder] = {}
        """Where one form is left it needs no choice; cleared when the versions narrow."""
        self._remembered: dict[str, dict[bytes, tuple[Value | None, ...]]] = {}
        """What short texts gave where one form is left: half the events of a migration's iterations say the same again."""

    def decode(self, event: str, raw: bytes) -> tuple[Value | None, ...] | None:
        """The wanted arguments of an event, None where it fits no declaration."""
        only = self._only.get(event)
        if only is None:
            return self._choose(event, raw)
        remembered = self._remembered[event]
        found = remembered.get(raw)
        if found is None:
            found = only(raw)
            if found is None:
                return self._any(event, raw)
            if len(raw) <= _SHORT_BYTES:
                if len(remembered) >= _MAX_REMEMBERED:
                    remembered.clear()
                remembered[raw] = found
        return found

    def _choose(self, event: str, raw: bytes) -> tuple[Value | None, ...] | None:
        forms = self._forms_of(event)
        left = [form for form in forms if form[0] & self._versions] or forms
        if len(left) == 1:
            self._only[event] = left[0][1]
            self._remembered[event] = {}
        fitting = [(versions, found) for versions, decoder in left if (found := decoder(raw)) is not None]
        if not fitting:
            return self._any(event, raw)
        possible = 0
        for versions, _ in fitting:
            possible |= versions
        self._narrow(possible)
        return fitting[0][1]

    def _any(self, event: str, raw: bytes) -> tuple[Value | None, ...] | None:
        return next((found for _, decoder in self._forms_of(event) if (found := decoder(raw)) is not None), None)

    def _forms_of(self, event: str) -> list[_Form]:
        """The different looks that the declarations of an event have: those with the most arguments first, then the newest.

        A last `%s` takes anything, so a declaration that lost the arguments behind it fits the texts of all before it:
        `ioc=0x1 ioctype=qio-channel-command hostname=(null) err=(nil)`.
        """
        forms = self._forms.get(event)
        if forms is None:
            by_look: dict[object, _Form] = {}
            for spec in sorted(self._catalogue.variants(event), key=lambda spec: -len(spec.arguments)):
                look, new = self._form(spec)
                versions, decoder = by_look.get(look, (0, new))
                by_look[look] = versions | _versions(spec), decoder
            forms = self._forms[event] = list(by_look.values())
        return forms

    def saw(self, event: str) -> None:
        """An event came up, decoded or not: versions that do not have it are out."""
        variants = self._catalogue.variants(event)
        if variants:
            possible = 0
            for spec in variants:
                possible |= _versions(spec)
            self._narrow(possible)

    def limit(self, first: str | None, last: str | None) -> None:
        """The format of the input allows these versions only."""
        self._narrow(between(first, last))

    def _narrow(self, possible: int) -> None:
        # A distribution's build can have an event early; then the range stays as it was.
        left = self._versions & possible
        if left and left != self._versions:
            self._versions = left
            self._only.clear()

    @property
    def version_range(self) -> str | None:
        """`6.1.0 - 7.2.0`, one version, or None where nothing that was seen tells."""
        return self._told or (None if self._versions == ALL else range_text(self._versions))

    def snapshot(self) -> dict[str, Any]:
        """What was learnt, as plain data."""
        return {"versions": [v for i, v in enumerate(VERSIONS) if self._versions >> i & 1]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`; versions that are not known any more are let go."""
        self._versions = sum(1 << i for i, v in enumerate(VERSIONS) if v in state["versions"]) or ALL
        self._only.clear()


class TextDecoder(EventDecoder):
    """Decodes events that were printed.

    Args:
        catalogue: The declarations.
        wanted: The arguments to give for each event, as in `Plan.rows`.
        qemu_version: One of VERSIONS where the user has told it.
    """

    def __init__(self, catalogue: Catalogue, wanted: Mapping[str, Sequence[str]], qemu_version: str | None = None) -> None:
        def form(spec: EventSpec) -> tuple[object, Decoder]:
            text = text_form(spec)
            look = (text.pattern, tuple((c.letter, c.argument.name) for c in text.conversions))
            return look, text.decoder(wanted.get(spec.name, ()))

        super().__init__(catalogue, form, qemu_version)


def _versions(spec: EventSpec) -> int:
    return between(spec.first, spec.last)
