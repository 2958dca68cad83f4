"""The words of the mapping language: every key of every section with what it takes and means.

The compiler refuses what is not here, and `mappings/README.md` is generated from here.
"""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """One key of a section: what may stand after it, and what it means."""

    form: str
    text: str
    required: bool = False


Section = dict[str, Key]

FILE: Section = {
    "version": Key("1", "The version of the language.", required=True),
    "scope": Key("name", "The instrumentation scope of all spans and metrics of the file.", required=True),
    "spans": Key("rules by id", "What has a begin and an end. The id is the span's name, unless `name` is given."),
    "machines": Key("rules by id", "State machines: one root span, and a child span for each state."),
    "metrics": Key("rules by name", "Counters, gauges and histograms; a name may have a list of rules that feed it."),
    "disable": Key(
        "list of ids",
        "Rules of other files, shipped ones too, that do not count: ids of spans and machines, names of metrics. What is "
        "inside a disabled rule, or points to it, does without it; what keeps its slowest `per` one needs it.",
    ),
    "unmapped": Key("reasons by event", "Events that are left out on purpose, each with the reason."),
    "tests": Key("list of tests", "Lines of a log and what must come of them, for `otelbridge mapping test`."),
}

SPAN: Section = {
    "name": Key("text", "The span's name, where several rules make spans of one name."),
    "kind": Key("internal | client | server | producer | consumer", "The span's kind; internal unless given."),
    "begin": Key(
        "event, list of events, or events with `when`", "What begins the span: whichever of them this QEMU has.", required=True
    ),
    "end": Key("event, list of events, or events with `when` and `error`", "What ends it."),
    "until": Key("next", "No end event exists: the span ends when the next one begins, or its parent ends."),
    "key": Key(
        "list of arguments",
        "What makes a begin and an end belong together. `{name: expression}` computes a part, `{name: {begin: …, end: …}}` "
        "computes it differently on both sides. `thread` is a preference: where the stream has no threads the rest of the key "
        "decides, and the span says so in `otelbridge.pairing`.",
    ),
    "repeated_begin": Key(
        "close | stack | queue | ignore | prefer",
        "What a begin does while one with the same key is open. `close`: the open one ends as incomplete (the default). "
        "`stack`: both are open, the youngest ends first. `queue`: the oldest ends first. `ignore`: the first one counts. "
        "`prefer`: the begins are named best first, and a better one moves the begin.",
    ),
    "timeout": Key("duration", "After so long in the time of the events the span is given up as incomplete."),
    "inside": Key("rule or list of rules", "The parent: the open span of the first of these rules that has one."),
    "attributes": Key(
        "attributes",
        "Attributes of the span. A bare name is an argument of the begin, `end.name` one of the end. The names "
        "`qemu.event.begin`, `qemu.event.end`, `error.type` and `otelbridge.*` are otelbridge's own.",
    ),
    "events": Key("events with `attributes`, `when`, `error`", "What is put into the open span as a span event."),
    "links": Key(
        "expressions by rule",
        "Points to the span of that rule on the other host with the same key and the same place in the order.",
    ),
    "keep": Key("{slowest: N, per: machine}", "Only the slowest spans go out; the histogram has all of them."),
    "duration": Key("{histogram: metric, by: [attributes]}", "A histogram of the length of the spans, in seconds."),
}

BEGIN: Section = {"when": Key("expression", "Only then.")}

END: Section = {
    "when": Key("expression", "Only then; names are arguments of the end event."),
    "error": Key("{when, type, message}", "The span failed."),
}

ERROR: Section = {
    "when": Key(
        "expression",
        "Only then it is an error. Bare names are arguments of the event itself; where it ends the span, `begin.name` ones of "
        "the begin.",
    ),
    "type": Key("text", "The attribute `error.type`; `{name}` puts in an argument."),
    "message": Key(
        "text",
        "The description of the status; `{name}` puts in an argument. Unless given, the event's name and, under a condition, "
        "that and the arguments it reads.",
    ),
}

EVENT: Section = {
    "attributes": Key("attributes", "Attributes of the span event."),
    "when": Key("expression", "Only then."),
    "error": Key("{when, type, message}", "The event makes the span it is put into an error; the first one explains it."),
}

ATTRIBUTE: Section = {
    "from": Key("expression or list of expressions", "The value: the first expression that has one."),
    "unless": Key("list of values", "Values that mean that there is none."),
    "remembered_by": Key(
        "argument",
        "For spans: where there is no value, the last span of this rule in the same migration with the same value of this "
        "argument lends its own.",
    ),
    "as": Key("hex", "How a number is written."),
    "value": Key("text", "A fixed text."),
    "ordinal": Key("machine", "The number of the span among those of its rule in the open machine, from 1."),
    "by_state": Key("values by state", "For machines: the value of the last state passed through that is named here."),
    "otherwise": Key("text", "With `by_state`: the value if none of the states was passed through."),
}

DURATION: Section = {
    "histogram": Key("metric", "The name of the metric.", required=True),
    "by": Key("list of attributes", "Attributes of the span that the series are kept apart by."),
    "limit": Key("number", "Series beyond so many go into one with `otel.metric.overflow`; 2000 unless given."),
}

KEEP: Section = {
    "slowest": Key("number", "How many.", required=True),
    "per": Key("machine", "For each span of this machine.", required=True),
}

MACHINE: Section = {
    "event": Key("event", "The event that tells the new state.", required=True),
    "state": Key("expression", "The state's name.", required=True),
    "start": Key("states by role", "The states that open the machine when it is closed.", required=True),
    "final": Key(
        "outcomes by state", "The states that close it: `unset`, `error`, or `{error: type, message: text}`.", required=True
    ),
    "roles": Key("events by role", "What speaks for a role; the first role of the file that has evidence counts."),
    "kind": Key("kinds by role", "The root span's kind; internal for a role that is not named."),
    "unknown_state": Key("keep | drop", "Whether a state that the file does not name gets a span; `keep` unless given."),
    "reasons": Key("expressions by event", "The last such text describes the error if the machine ends in one."),
    "attributes": Key("attributes", "Attributes of the root span, as they are when it ends; names as for spans."),
    "states": Key("{attributes, duration}", "Attributes and histogram of the states' spans."),
    "events": Key("events with `attributes`, `when`", "What is put into the open root span as a span event."),
    "duration": Key("{histogram: metric, by: [attributes]}", "A histogram of the length of the root spans."),
    "active": Key("metric", "An up-down counter of open machines."),
    "completed": Key("{counter: metric, by: [attributes]}", "A counter of closed machines."),
}

STATES: Section = {"attributes": SPAN["attributes"], "duration": SPAN["duration"]}
FINAL: Section = {
    "error": Key("text", "The attribute `error.type`.", required=True),
    "message": Key("text", "The description of the status; the state's name unless given."),
}
COMPLETED: Section = {"counter": Key("metric", "The name of the metric.", required=True), "by": DURATION["by"]}

METRIC: Section = {
    "counter": Key("event or list of events", "Adds `add`, or 1, for each event."),
    "gauge": Key("event or list of events", "Sets the gauge to `set`."),
    "histogram": Key("event or list of events", "Records `record`."),
    "add": Key(
        "expression or list of arguments",
        "What the counter adds; of a list the first argument that this QEMU has. Negative values are left out and told.",
    ),
    "set": Key("expression or list of arguments", "What the gauge is set to."),
    "record": Key("expression or list of arguments", "What the histogram records; negative values are left out and told."),
    "unit": Key("UCUM unit", "The unit, for example `By`, `s`, `{page}`.", required=True),
    "description": Key("text", "One sentence for the backend."),
    "when": Key("expression", "Only then."),
    "attributes": Key("attributes", "Attributes of the series; few values only."),
    "limit": DURATION["limit"],
}

TEST: Section = {
    "name": Key("text", "What is true, in one sentence.", required=True),
    "events": Key("lines of a log", "The input.", required=True),
    "expect": Key("{spans, open, metrics}", "What must come of it.", required=True),
    "qemu_version": Key("version", "As `--qemu-version`."),
    "role": Key("source | destination", "As `--source` or `--destination`."),
}

EXPECT: Section = {
    "spans": Key("list of spans", "All spans of the file's scope, in any order; of each only what is named is compared."),
    "open": Key("number", "How many spans are open after the last line."),
    "metrics": Key("list of points", "Last points that must be there."),
}

EXPECTED_SPAN: Section = {
    "name": Key("text", "The span's name.", required=True),
    "duration": Key("duration", "Its length."),
    "status": Key("unset | error", "Its status."),
    "message": Key("text", "The description of the status."),
    "kind": SPAN["kind"],
    "parent": Key("text", "The name of its parent."),
    "incomplete": Key("true | false", "Whether its end was never seen."),
    "attributes": Key("values by name", "Attributes that it has."),
    "events": Key("list of events, each a name or `{name, attributes}`", "All its span events, in order."),
}

EXPECTED_EVENT: Section = {
    "name": Key("event", "The event's name.", required=True),
    "attributes": Key("values by name", "Attributes that it has."),
}

EXPECTED_METRIC: Section = {
    "name": Key("text", "The metric's name.", required=True),
    "value": Key("number", "The value of a counter or gauge."),
    "count": Key("number", "The number of measurements of a histogram."),
    "attributes": Key("values by name", "All attributes of the series."),
}

PSEUDO_ARGUMENTS = {
    "thread": "the thread that wrote the event",
    "state": "the state of the open machine",
    "role": "the role of the migration",
    "qemu_version": "the versions of QEMU that can have written the stream",
    "begin_event": "the name of the event that began the span",
    "end_event": "the name of the event that ended it",
}

RESERVED = ("qemu.event.begin", "qemu.event.end", "error.type", "otelbridge.*")
"""Attributes that otelbridge itself sets on spans; `*` stands for any rest."""

RESERVED_IN_METRICS = ("otel.metric.overflow",)
"""Those of the series of a metric."""

KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}

SECTIONS = (
    ("A file", FILE), ("`spans`", SPAN), ("`begin`, by event", BEGIN), ("`end`, by event", END), ("`error`", ERROR),
    ("`events`, by event", EVENT), ("`attributes`, where a value is a table", ATTRIBUTE), ("`duration`", DURATION),
    ("`keep`", KEEP), ("`machines`", MACHINE), ("`states` of a machine", STATES), ("`final` of a machine, by state", FINAL),
    ("`completed` of a machine", COMPLETED), ("`metrics`", METRIC), ("`tests`", TEST), ("`expect`", EXPECT),
    ("`spans` of `expect`", EXPECTED_SPAN), ("`events` of an expected span", EXPECTED_EVENT),
    ("`metrics` of `expect`", EXPECTED_METRIC),
)  # fmt: skip


def reference() -> str:
    """The tables of all sections, in Markdown."""
    parts = []
    for title, section in SECTIONS:
        rows = [
            f"| `{name}`{'*' if key.required else ''} | {_cell(key.form)} | {_cell(key.text)} |"
            for name, key in section.items()
        ]
        parts.append("\n".join([f"### {title}", "", "| key | takes | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
