"""The `tests:` of a mapping file: what they expect, and how it differs from what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otelbridge.mapping import language
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.rules import MappingTest
from otelbridge.mapping.source import Node
from otelbridge.records import ERROR, FinishedSpan, Histogram, MetricPoint

_KIND_NAMES = {number: name for name, number in language.KINDS.items()}


def read_test(reader: NodeReader, node: Node, path: str) -> MappingTest | None:
    """One entry of `tests:`; None where something lacks, which the reader has noted."""
    keys = reader.keys(node, language.TEST, "a test")
    if not {"name", "events", "expect"} <= keys.keys():
        return None
    expect = reader.keys(keys["expect"], language.EXPECT, "'expect'")
    if not expect and keys["expect"].kind in ("map", "null"):
        reader.problem(keys["expect"], "the test expects nothing", "name spans, open or metrics")
    wanted: dict[str, object] = {}
    if "spans" in expect:
        wanted["spans"] = [_span(reader, one) for one in reader.items(expect["spans"], "'spans'")]
    if "metrics" in expect:
        wanted["metrics"] = [_point(reader, one) for one in reader.items(expect["metrics"], "'metrics'")]
    if "open" in expect:
        wanted["open"] = reader.integer(expect["open"])
    return MappingTest(
        reader.text(keys["name"], "a name"),
        path,
        node.location.line,
        reader.text(keys["events"], "lines of a log"),
        wanted,
        reader.version(keys["qemu_version"]) if "qemu_version" in keys else None,
        reader.choice(keys["role"], ["source", "destination"], "'role'") if "role" in keys else None,
    )


def _span(reader: NodeReader, node: Node) -> dict[str, object]:
    keys = reader.keys(node, language.EXPECTED_SPAN, "an expected span")
    found: dict[str, object] = {k: reader.text(keys[k], "a text") for k in ("name", "message", "parent") if k in keys}
    if "duration" in keys:
        found["duration"] = reader.duration(keys["duration"])
    if "status" in keys:
        found["status"] = reader.choice(keys["status"], ["unset", "error"], "'status'")
    if "kind" in keys:
        found["kind"] = reader.choice(keys["kind"], list(language.KINDS), "'kind'")
    if "incomplete" in keys:
        found["incomplete"] = reader.choice(keys["incomplete"], ["true", "false"], "'incomplete'") == "true"
    if "events" in keys:
        events = [_event(reader, one) for one in reader.items(keys["events"], "'events'")]
        found["events"], found["event_attributes"] = [name for name, _ in events], [values for _, values in events]
    found["attributes"] = _values(reader, keys.get("attributes"))
    return found


def _event(reader: NodeReader, node: Node) -> tuple[str, dict[str, str]]:
    """A span event, by its name alone or with attributes that it has."""
    if node.kind != "map":
        return reader.text(node, "an event"), {}
    keys = reader.keys(node, language.EXPECTED_EVENT, "an expected span event")
    name = reader.text(keys["name"], "a name") if "name" in keys else ""
    return name, _values(reader, keys.get("attributes"))


def _point(reader: NodeReader, node: Node) -> dict[str, object]:
    keys = reader.keys(node, language.EXPECTED_METRIC, "an expected point")
    found: dict[str, object] = {"name": reader.text(keys["name"], "a name")} if "name" in keys else {}
    found |= {k: reader.number(keys[k]) for k in ("value", "count") if k in keys}
    if "attributes" in keys:
        found["attributes"] = _values(reader, keys["attributes"])
    return found


def _values(reader: NodeReader, node: Node | None) -> dict[str, str]:
    return {key.text: reader.text(value, "a value") for key, value in reader.entries(node, "'attributes'")}


# --- comparing --------------------------------------------------------------------------------------


def differences(
    test: MappingTest, spans: Sequence[FinishedSpan], scope: str, points: Sequence[MetricPoint], open_spans: int
) -> list[str]:
    """How what came differs from what a test expects, a sentence for each difference; empty if it does not.

    Args:
        test: The test.
        spans: All spans; those of other scopes are only looked at as parents.
        scope: The file's scope.
        points: All points, of each series the last one counts.
        open_spans: How many spans were open after the last line.
    """
    expect: Mapping[str, Any] = test.expect
    found = []
    if "spans" in expect:
        found += _spans_differ(expect["spans"], spans, scope)
    if expect.get("open") is not None and expect["open"] != open_spans:
        found.append(f"{expect['open']} spans should be open after the last line, but {open_spans} are")
    for wanted in expect.get("metrics", ()):
        found += _point_differs(wanted, points)
    return found


def _spans_differ(expected: Sequence[Mapping[str, Any]], spans: Sequence[FinishedSpan], scope: str) -> list[str]:
    names = {span.span_id: span.name for span in spans}
    left = [span for span in spans if span.scope.name == scope]
    found = []
    for wanted in expected:
        same = [span for span in left if span.name == wanted.get("name")]
        # The one with the fewest differences is meant.
        ranked = sorted(
            ((_span_differs(wanted, span, names), place) for place, span in enumerate(same)), key=lambda r: (len(r[0]), r[1])
        )
        if not ranked:
            found.append(f"no span '{wanted.get('name')}' came; there {_listed([s.name for s in left])}")
            continue
        wrong, place = ranked[0]
        left.remove(same[place])
        found += [f"span '{wanted['name']}': {text}" for text in wrong]
    found += [f"a span '{span.name}' came that is not expected ({_shown(span)})" for span in left]
    return found


def _span_differs(wanted: Mapping[str, Any], span: FinishedSpan, names: Mapping[bytes, str]) -> list[str]:
    has = dict(span.attributes)
    values: dict[str, object] = {
        "duration": span.end_ns - span.start_ns,
        "status": "error" if span.status == ERROR else "unset",
        "message": span.message,
        "kind": _KIND_NAMES.get(span.kind, str(span.kind)),
        "parent": names.get(span.parent_id, ""),
        "incomplete": has.get("otelbridge.incomplete") is True,
        "events": [event.name for event in span.events],
    }
    found = []
    for key, value in values.items():
        if key in wanted and wanted[key] != value:
            expected, came = (f"{v} ns" if key == "duration" else repr(v) for v in (wanted[key], value))
            found.append(f"{key} should be {expected}, but is {came}")
    found += _attributes_differ("the attribute", wanted.get("attributes", {}), has)
    if wanted.get("events") == values["events"]:
        for event, attributes in zip(span.events, wanted["event_attributes"], strict=True):
            found += _attributes_differ(f"of the event '{event.name}' the attribute", attributes, dict(event.attributes))
    return found


def _attributes_differ(what: str, wanted: Mapping[str, str], has: Mapping[str, object]) -> list[str]:
    found = []
    for name, text in wanted.items():
        if name not in has:
            found.append(f"{what} '{name}' should be '{text}', but is not there")
        elif _as_text(has[name]) != text:
            found.append(f"{what} '{name}' should be '{text}', but is '{_as_text(has[name])}'")
    return found


def _point_differs(wanted: Mapping[str, Any], points: Sequence[MetricPoint]) -> list[str]:
    name, attributes = wanted.get("name"), wanted.get("attributes")
    of_name = [p for p in points if p.metric.name == name]
    if not of_name:
        return [f"no point of '{name}' came; there {_listed([p.metric.name for p in points])}"]
    same = [p for p in of_name if attributes is None or {k: _as_text(v) for k, v in p.attributes} == attributes]
    if not same:
        came = _listed([_series(p.attributes) for p in of_name])
        return [f"no point of '{name}' with {_series(attributes or {})} came; there {came}"]
    value = same[-1].value
    word, number = ("count", value.count) if isinstance(value, Histogram) else ("value", value)
    other = "value" if word == "count" else "count"
    if other in wanted:
        return [f"the metric '{name}' is a {same[-1].metric.kind}, which has no '{other}'; compare its '{word}'"]
    expected = wanted.get(word)
    if expected is not None and expected != number:
        return [f"the {word} of '{name}' should be {expected:.15g}, but is {number}"]
    return []


def _series(attributes: Mapping[str, object] | Sequence[tuple[str, object]]) -> str:
    return ", ".join(f"{k}={_as_text(v)}" for k, v in sorted(dict(attributes).items())) or "no attributes"


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(names: Sequence[str]) -> str:
    return f"are only: {', '.join(sorted(set(names)))}" if names else "are none at all"


def _shown(span: FinishedSpan) -> str:
    return f"{span.end_ns - span.start_ns} ns, " + ", ".join(f"{k}={_as_text(v)}" for k, v in span.attributes)
