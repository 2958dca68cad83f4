"""The instruments that rules feed: a name is the same instrument in all files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from otelbridge.mapping import language
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.rules import Duration
from otelbridge.mapping.source import Node, did_you_mean
from otelbridge.records import Metric, Scope

_METRIC_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,254}")
_SERIES_LIMIT = 2000


class InstrumentReader:
    """Reads what names an instrument.

    Args:
        nodes: Reads the nodes of the file.
        scope: Of the instruments that the file is the first to name.
        known: The instruments of all files by name.
    """

    def __init__(self, nodes: NodeReader, scope: Scope, known: dict[str, Metric]) -> None:
        self._nodes, self._scope, self._known = nodes, scope, known

    def instrument(
        self,
        node: Node,
        name: str,
        kind: Literal["sum", "gauge", "histogram"],
        unit: str,
        text: str,
        *,
        monotonic: bool = False,
    ) -> Metric:
        """The instrument of this name; two rules that feed one must agree what it is."""
        if not _METRIC_NAME.fullmatch(name):
            self._nodes.problem(node, f"'{name}' is no name of a metric", "letters, digits, and . _ - / after a letter")
        known = self._known.get(name)
        if known is None:
            return self._known.setdefault(name, Metric(name, kind, unit, text, self._scope, monotonic))
        if (known.kind, known.unit, known.monotonic) != (kind, unit, monotonic):
            self._nodes.problem(
                node,
                f"the metric '{name}' is a {known.kind} in '{known.unit}' elsewhere, here a {kind} in '{unit}'",
                "rename one of them",
            )
        return known

    def limit(self, node: Node | None) -> int:
        """How many series an instrument has."""
        found = None if node is None else self._nodes.at_least_one(node, "a limit of")
        return found or _SERIES_LIMIT

    def duration(self, node: Node | None, attributes: Iterable[str], of: str) -> Duration | None:
        """The histogram of the lengths of spans that have these attributes."""
        if node is None:
            return None
        keys = self._nodes.keys(node, language.DURATION, "'duration'")
        if "histogram" not in keys:
            return None
        name = self._nodes.text(keys["histogram"], "a metric's name")
        by = self._by(keys.get("by"), attributes)
        limit = self.limit(keys.get("limit"))
        return Duration(self.instrument(keys["histogram"], name, "histogram", "s", f"Duration of {of}."), by, limit)

    def active(self, node: Node | None, rule_id: str) -> Metric | None:
        """The updowncounter of a rule's open spans."""
        if node is None:
            return None
        name = self._nodes.text(node, "a metric's name")
        return self.instrument(node, name, "sum", f"{{{rule_id}}}", f"Open {rule_id} spans.")

    def completed(self, node: Node | None, rule_id: str, attributes: Iterable[str]) -> tuple[Metric, tuple[str, ...]] | None:
        """The counter of a rule's ended spans, and the attributes that it is kept by."""
        if node is None:
            return None
        keys = self._nodes.keys(node, language.COMPLETED, "'completed'")
        if "counter" not in keys:
            return None
        name = self._nodes.text(keys["counter"], "a metric's name")
        metric = self.instrument(keys["counter"], name, "sum", f"{{{rule_id}}}", f"Ended {rule_id} spans.", monotonic=True)
        return metric, self._by(keys.get("by"), attributes)

    def _by(self, node: Node | None, attributes: Iterable[str]) -> tuple[str, ...]:
        known = [*attributes, "qemu.event.begin", "qemu.event.end"]
        found: list[str] = []
        for part in self._nodes.items(node, "'by'"):
            name = self._nodes.text(part, "an attribute")
            if name and name not in known:
                self._nodes.problem(part, f"the span has no attribute '{name}'", did_you_mean(name, known))
            if name and name in found:
                self._nodes.problem(part, f"'by' names the attribute '{name}' twice", "remove one of the two")
            found.append(name)
        return tuple(found)
