"""The mapping language as a JSON Schema (2020-12), made of the tables in `language`: for editors that complete and check.

A schema knows the words and where they stand; whether events, arguments and other rules exist is checked at loading.
"""

from __future__ import annotations

from typing import Any

from otelbridge.catalogue import builtin
from otelbridge.mapping import language
from otelbridge.mapping.language import Key, Section

Schema = dict[str, Any]

_TEXT: Schema = {"type": ["string", "number", "boolean"]}
"""A scalar counts as it is written, and YAML's own readers take some for numbers or truths."""
_NUMBER: Schema = {"type": ["integer", "string"], "pattern": r"^-?\d{1,18}$"}
_DECIMAL: Schema = {"type": ["number", "string"], "pattern": r"^-?\d{1,18}(\.\d{1,18})?$"}
_DURATION: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ns|us|ms|s|m|h)$"}
_NULL: Schema = {"type": "null"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _words(form: str) -> Schema:
    """`close | stack | queue`."""
    return {"enum": [word.strip() for word in form.split("|")]}


def _only(words: list[str], *, not_: list[str]) -> Schema:
    """These keys, and none of the others."""
    return {"required": words, "properties": dict.fromkeys(not_, False)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _some(one: Schema) -> Schema:
    """One thing or a list of it."""
    return {"anyOf": [one, _list(one)]}


def _table(values: Schema) -> Schema:
    """Values by a name of one's own."""
    return {"type": ["object", "null"], "additionalProperties": values}


def _by_event(section: str) -> Schema:
    """What stands below events; nothing stands for nothing more to say."""
    below = {"anyOf": [_ref(section), _NULL]}
    return {"type": "object", "propertyNames": _ref("event"), "additionalProperties": _some(below)}


def _events_with(section: str) -> Schema:
    return {"anyOf": [_ref("event"), _list(_ref("event")), _by_event(section)]}


_EXPRESSIONS: Schema = _some(_TEXT)
_VALUES: dict[str, Schema] = {
    "1": {"enum": [1, "1"]},
    "next": {"enum": ["next"]},
    "hex": {"enum": ["hex"]},
    "name": _TEXT,
    "list of ids": {"type": ["array", "null"], "items": _TEXT},
    "text": _TEXT,
    "metric": _TEXT,
    "UCUM unit": _TEXT,
    "expression": _TEXT,
    "argument": _TEXT,
    "version": _TEXT,
    "lines of a log": {"type": "string"},
    "number": _NUMBER,
    "duration": _DURATION,
    "machine": _TEXT,
    "event": _ref("event"),
    "event or list of events": _some(_ref("event")),
    "event, list of events, or events with `when`": _events_with("begin"),
    "event, list of events, or events with `when` and `error`": _events_with("end"),
    "events with `attributes`, `when`, `error`": _events_with("note"),
    "events with `attributes`, `when`": _events_with("note"),
    "rule or list of rules": _some(_TEXT),
    "expression or list of expressions": _EXPRESSIONS,
    "expression or list of arguments": _EXPRESSIONS,
    "list of arguments": {
        "type": ["array", "null"],
        "items": {
            "anyOf": [
                _TEXT,
                {
                    "type": "object",
                    "additionalProperties": {
                        "anyOf": [
                            _TEXT,
                            {
                                "type": "object",
                                "properties": {"begin": _TEXT, "end": _TEXT},
                                "required": ["begin", "end"],
                                "additionalProperties": False,
                            },
                        ]
                    },
                },
            ]
        },
    },
    "list of values": {"type": ["array", "null"], "items": _TEXT},
    "list of attributes": {"type": ["array", "null"], "items": _TEXT},
    "list of events, each a name or `{name, attributes}`": _list({"anyOf": [_TEXT, _ref("expected_event")]}),
    "list of tests": {"type": ["array", "null"], "items": _ref("test")},
    "list of spans": {"type": ["array", "null"], "items": _ref("expected_span")},
    "list of points": {"type": ["array", "null"], "items": _ref("expected_metric")},
    "attributes": _table({"anyOf": [_EXPRESSIONS, _ref("attribute")]}),
    "expressions by rule": _table(_TEXT),
    "expressions by event": {"type": ["object", "null"], "propertyNames": _ref("event"), "additionalProperties": _TEXT},
    "reasons by event": {"type": ["object", "null"], "propertyNames": _ref("event"), "additionalProperties": _TEXT},
    "values by state": _table(_TEXT),
    "values by name": _table(_TEXT),
    "states by role": _table(_some(_TEXT)),
    "events by role": _table(_some(_ref("event"))),
    "kinds by role": _table({"enum": list(language.KINDS)}),
    "outcomes by state": _table({"anyOf": [{"enum": ["unset", "error"]}, _ref("final")]}),
    "rules by id": {"spans": _table(_ref("span")), "machines": _table(_ref("machine"))},
    "rules by name": _table(_some(_ref("metric"))),
    "{when, type, message}": {"anyOf": [_ref("error"), _NULL]},
    "{slowest: N, per: machine}": _ref("keep"),
    "{histogram: metric, by: [attributes]}": _ref("duration"),
    "{counter: metric, by: [attributes]}": _ref("completed"),
    "{attributes, duration}": _ref("states"),
    "{spans, open, metrics}": _ref("expect"),
}
"""What may stand after a key, by its `form` in the tables."""

_SECTIONS: dict[str, Section] = {
    "span": language.SPAN, "begin": language.BEGIN, "end": language.END, "error": language.ERROR, "note": language.EVENT,
    "attribute": language.ATTRIBUTE, "duration": language.DURATION, "keep": language.KEEP, "machine": language.MACHINE,
    "states": language.STATES, "final": language.FINAL, "completed": language.COMPLETED, "metric": language.METRIC,
    "test": language.TEST, "expect": language.EXPECT, "expected_span": language.EXPECTED_SPAN,
    "expected_metric": language.EXPECTED_METRIC, "expected_event": language.EXPECTED_EVENT,
}  # fmt: skip
_MORE: dict[str, Schema] = {
    "span": {"oneOf": [{"required": ["end"]}, {"required": ["until"]}]},
    "metric": {
        "oneOf": [
            _only(["counter"], not_=["gauge", "histogram", "set", "record"]),
            _only(["gauge", "set"], not_=["counter", "histogram", "add", "record"]),
            _only(["histogram", "record"], not_=["counter", "gauge", "add", "set"]),
        ]
    },
    "attribute": {
        "oneOf": [{"required": [word]} for word in ("from", "value", "ordinal", "by_state")],
        "dependentRequired": {word: ["from"] for word in ("remembered_by", "unless", "as")} | {"otherwise": ["by_state"]},
    },
}
"""What holds between the keys of a section."""


def schema() -> Schema:
    """The JSON Schema of a mapping file."""
    # Any event may be named, of another QEMU for example; those that are known are offered.
    event = {"anyOf": [{"enum": sorted(builtin().declared())}, {"type": "string", "pattern": r"^[A-Za-z_]\w*$"}]}
    sections = {name: _section(section) | _MORE.get(name, {}) for name, section in _SECTIONS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A mapping of otelbridge",
        "description": "Which trace events of QEMU begin and end a span, and what is counted.",
        **_section(language.FILE),
        "$defs": {"event": event, **sections},
    }


def _section(section: Section) -> Schema:
    found: Schema = {
        "type": "object",
        "properties": {name: {"description": key.text, **_value(name, key)} for name, key in section.items()},
        "additionalProperties": False,
    }
    required = [name for name, key in section.items() if key.required]
    return {**found, "required": required} if required else found


def _value(name: str, key: Key) -> Schema:
    if "|" in key.form and key.form not in _VALUES:
        words = _words(key.form)
        return {"enum": [*words["enum"], True, False]} if "true" in words["enum"] else words
    found = _VALUES[key.form]
    # One form stands for two kinds of rules.
    return found[name] if name in found and "$ref" not in found and "type" not in found else found
