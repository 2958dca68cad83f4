"""Why an event did, or did not, begin or end a span: what the rules tried with it when it came."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from otelbridge.catalogue import Catalogue, TextDecoder
from otelbridge.engine.observed import Attempt, Open
from otelbridge.engine.state import Key, OpenSpan
from otelbridge.errors import UsageError
from otelbridge.mapping import Mapping as Rules
from otelbridge.mapping.rules import SpanRule
from otelbridge.mapping.uses import Use, uses_of
from otelbridge.pipeline import ConvertOptions
from otelbridge.pipeline.watching import rows_of, watch
from otelbridge.readers.inputs import TraceInput
from otelbridge.readers.open import open_input
from otelbridge.readers.source import Progress
from otelbridge.records import ERROR, SECOND_NS, FinishedSpan, MetricPoint, Outcome, Resource, Row, Signal, Value
from otelbridge.view.text import duration_text

MAX_SHOWN = 20
"""So many events are explained one by one; of more only how many there are."""
NEAREST = 3
"""So many events before and after a time at which there is none."""

# 1795407950.847563   19625@1795407950.847563:
_SECONDS = re.compile(r"(?:\d+@)?(?P<seconds>\d{1,11})(?:\.(?P<fraction>\d{1,9}))?:?")
# 2026-11-23 04:26:05.358 UTC   2026-11-23T04:26:05.358123Z
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.(?P<fraction>\d{1,9}))?(?: UTC|Z|[+-]\d\d:?\d\d)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Span(NamedTuple):
    """A stretch of time in nanoseconds, the end left out: as exact as somebody has written it."""

    begin_ns: int
    end_ns: int


def read_time(text: str) -> Span:
    """The time that a user names: as the waterfall prints it, in ISO, or in seconds as a log has it.

    Raises:
        UsageError: It is no time.
    """
    text = text.strip()
    iso, seconds = _ISO.fullmatch(text), _SECONDS.fullmatch(text)
    if seconds is not None:
        return _stretch(int(seconds["seconds"]), seconds["fraction"] or "")
    if iso is not None:
        whole = text.replace(f".{iso['fraction']}", "") if iso["fraction"] else text
        try:
            moment = datetime.fromisoformat(whole.removesuffix(" UTC"))
        except ValueError:
            moment = None
        if moment is not None:
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return _stretch((moment - _EPOCH) // timedelta(seconds=1), iso["fraction"] or "")
    raise UsageError(
        f"--at '{text}' is no time; expected is one as a log or the waterfall has it: 1795407950.847563, "
        "2026-11-23T04:26:05.358123Z or '2026-11-23 04:26:05.358 UTC'."
    )


def _stretch(seconds: int, fraction: str) -> Span:
    begin_ns = seconds * SECOND_NS + int(fraction.ljust(9, "0") or "0")
    return Span(begin_ns, begin_ns + 10 ** (9 - len(fraction)))


def moment_text(time_ns: int) -> str:
    """A moment in UTC to the microsecond: `2026-11-23 04:26:05.358123 UTC`."""
    moment = _EPOCH + timedelta(microseconds=time_ns // 1000)
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC"


# --- which events ---------------------------------------------------------------------------------------


class Near(NamedTuple):
    """An event of a log with the input it stands in."""

    trace: TraceInput
    row: Row


@dataclass(slots=True)
class Nearby:
    """The events that are in a stretch of time, and those next to it."""

    wanted: Span
    inside: list[Near] = field(default_factory=list)
    count: int = 0
    before: list[Near] = field(default_factory=list)
    after: list[Near] = field(default_factory=list)

    def look(self, trace: TraceInput, row: Row) -> None:
        """Look at an event, in any order."""
        time_ns = row.time_ns or 0
        if time_ns < self.wanted.begin_ns:
            self.before = _nearest([*self.before, Near(trace, row)], -1)
        elif time_ns >= self.wanted.end_ns:
            self.after = _nearest([*self.after, Near(trace, row)], 1)
        else:
            self.count += 1
            if len(self.inside) < MAX_SHOWN:
                self.inside.append(Near(trace, row))


def _nearest(found: list[Near], sign: int) -> list[Near]:
    if len(found) <= NEAREST:
        return found
    return sorted(found, key=lambda near: sign * (near.row.time_ns or 0))[:NEAREST]


def no_such_time(text: str, nearby: Nearby) -> UsageError:
    """That nothing is there, with what is nearest."""
    near = sorted([*nearby.before, *nearby.after], key=lambda one: one.row.time_ns or 0)
    lines = [f"  {moment_text(one.row.time_ns or 0)}  {one.row.event} {_text(one.row)}  ({one.trace.paths[0]})" for one in near]
    return UsageError("\n".join([f"There is no event at {text}; the nearest are:", *lines]))


def _text(row: Row) -> str:
    return row.raw.decode("utf-8", "backslashreplace")


# --- watching -------------------------------------------------------------------------------------------


class Explained(NamedTuple):
    """An event with what the rules tried with it. `alike` events went the same way, this is the first of them.

    Unless `timed` the log has no stamps: its times are the numbers of the lines in microseconds. `files` are the log and its
    rotated parts.
    """

    path: str
    files: tuple[str, ...]
    timed: bool
    time_ns: int
    row: Row
    attempts: tuple[Attempt, ...]
    read: bool
    alike: int = 1
    line: int | None = None
    """Where it stands in `file`, if the log has stamps, counted from 1."""
    file: str = ""


class Explainer:
    """Watches the engine and remembers what the rules tried with the events that are wanted.

    Args:
        wanted: Whether somebody wants to know about an event, by the time at which the engine took it.
        alike: Events with which the same rules did the same are remembered once.
    """

    def __init__(self, wanted: Callable[[int, Row], bool], *, alike: bool) -> None:
        self._wanted, self._alike = wanted, alike
        self._path, self._timed = "", True
        self._files: tuple[str, ...] = ()
        self._row: tuple[int, Row] | None = None
        self._attempts: list[Attempt] = []
        self._read = True
        self._found: dict[object, Explained] = {}
        self._ids: set[bytes] = set()
        self.left_out = 0
        self.finished: dict[bytes, FinishedSpan] = {}
        """The spans that came of it, by id."""

    @property
    def found(self) -> list[Explained]:
        """The events, in the order in which the engine took them."""
        return list(self._found.values())

    # What the engine tells.

    def reads(self, trace: TraceInput) -> None:
        """From here on it is of this input."""
        self.finish()
        self._path, self._files, self._timed = trace.paths[0], trace.files, _is_timed(trace)

    def came(self, time_ns: int, row: Row) -> None:
        """An event comes up."""
        self.finish()
        if self._wanted(time_ns, row):
            self._row = time_ns, row

    def counted(self, event: str, number: int) -> None:
        """Of no interest: nothing was tried with it."""

    def unread(self, _event: str) -> None:
        """Its text fits no declaration."""
        self._read = False

    def tried(self, attempt: Attempt) -> None:
        """What a rule made of it."""
        if self._row is not None:
            self._attempts.append(attempt)

    def ended(self, _rule: SpanRule, _span: OpenSpan, _event: str | None) -> None:
        """Of no interest: the span itself comes."""

    def finish(self) -> None:
        """The event is over."""
        if self._row is not None:
            self._keep(Explained(self._path, self._files, self._timed, *self._row, tuple(self._attempts), self._read))
        self._row, self._read = None, True
        self._attempts.clear()

    def _keep(self, one: Explained) -> None:
        place: object = tuple((a.rule, a.how, a.outcome, a.detail) for a in one.attempts) if self._alike else len(self._found)
        before = self._found.get((one.row.event, one.read, place))
        if before is None and len(self._found) >= MAX_SHOWN:
            self.left_out += 1
            return
        self._found[one.row.event, one.read, place] = one if before is None else before._replace(alike=before.alike + 1)
        if before is None:
            self._ids |= {i for a in one.attempts for i in (a.span_id, a.other_id, *(o.span_id for o in a.open)) if i}

    # What comes out of the engine.

    def spans(self, _resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        """Finished spans; what came before them is over."""
        self.finish()
        self.finished |= {span.span_id: span for span in spans if span.span_id in self._ids}

    def points(self, _resource: Resource, _points: Sequence[MetricPoint]) -> None:
        """Of no interest."""

    def flush(self) -> None:
        """Nothing is held."""

    def close(self) -> Mapping[Signal, Outcome]:
        """Nothing is delivered."""
        return {"traces": Outcome(), "metrics": Outcome()}


class Finder(Explainer):
    """Looks for the spans with an id, to know which events began and ended them."""

    def __init__(self, prefix: str) -> None:
        super().__init__(lambda _time_ns, _row: False, alike=False)
        self._prefix = prefix

    def spans(self, _resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        """Finished spans."""
        self.finished |= {span.span_id: span for span in spans if span.span_id.hex().startswith(self._prefix)}

    def moments(self) -> frozenset[tuple[int, str]]:
        """Time and name of the events that began and ended the one span.

        Raises:
            UsageError: There is no such span, or more than one.
        """
        if len(self.finished) != 1:
            several = "; give more of it" if self.finished else ": give the id as a backend or the OTLP files show it"
            what = f"{len(self.finished)} spans begin" if self.finished else "No span that goes out begins"
            raise UsageError(f"{what} with --span '{self._prefix}'{several}.")
        (span,) = self.finished.values()
        events = dict(span.attributes)
        begin, end = events.get("qemu.event.begin"), events.get("qemu.event.end")
        return frozenset([(span.start_ns, str(begin)), (span.end_ns, str(end))])


# --- questions ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """Which events somebody wants to know about: those at a time, of a name, or that made a span. One of them is given."""

    at: str | None = None
    event: str | None = None
    span: str | None = None


class Answer(NamedTuple):
    """The events, of how many more only the number is known, the spans that came of them, and QEMU's version by file."""

    events: tuple[Explained, ...]
    left_out: int
    finished: Mapping[bytes, FinishedSpan]
    versions: Mapping[str, str | None]


class Asked(NamedTuple):
    """What is read for an answer: the inputs with their options, the rules, the environment, who is told how far it is."""

    options: ConvertOptions
    rules: Rules
    env: Mapping[str, str]
    progress: Progress


def explain(question: Question, asked: Asked) -> Answer:
    """What the rules did with the events in question.

    Raises:
        UsageError: There is no such event, time or span in the inputs.
        OtelbridgeError: The inputs cannot be read.
    """
    answer = _answer(question, asked)
    return answer._replace(events=tuple(_with_lines(answer.events)))


def _answer(question: Question, asked: Asked) -> Answer:
    if question.at is not None:
        return _at(question.at, asked)
    if question.event is not None:
        return _of_name(question.event, asked)
    finder = Finder((question.span or "").lower())
    _watched(finder, asked)
    moments = finder.moments()
    explainer = Explainer(lambda time_ns, row: (time_ns, row.event) in moments, alike=False)
    return _answered(explainer, _watched(explainer, asked))


def _watched(explainer: Explainer, asked: Asked) -> dict[str, str | None]:
    reports = watch(
        asked.options, explainer, [explainer], env=asked.env, progress=asked.progress, reads=explainer.reads
    )  # fmt: skip
    explainer.finish()
    return {report.path: report.qemu_version for report in reports}


def _answered(explainer: Explainer, versions: Mapping[str, str | None], more: Sequence[Explained] = ()) -> Answer:
    events = sorted([*explainer.found, *more], key=lambda one: one.time_ns)
    return Answer(tuple(events), explainer.left_out, explainer.finished, versions)


def _at(text: str, asked: Asked) -> Answer:
    nearby = Nearby(read_time(text))
    for trace, row in rows_of(asked.options, None, env=asked.env, progress=asked.progress):
        nearby.look(trace, row)
    if not nearby.inside:
        raise no_such_time(text, nearby)
    begin_ns, end_ns = nearby.wanted
    explainer = Explainer(lambda _time_ns, row: begin_ns <= (row.time_ns or 0) < end_ns, alike=False)
    versions = _watched(explainer, asked)
    # What no rule needs one by one does not come to the engine.
    others = [_untried(near) for near in nearby.inside if near.row.event not in asked.rules.plan.rows]
    answer = _answered(explainer, versions, others)
    return answer._replace(left_out=nearby.count - len(answer.events))


def _of_name(event: str, asked: Asked) -> Answer:
    explainer = Explainer(lambda _time_ns, row: row.event == event, alike=True)
    if event in asked.rules.plan.rows:
        answer = _answered(explainer, _watched(explainer, asked))
    else:
        first, count = None, 0
        for trace, row in rows_of(asked.options, {event}, env=asked.env, progress=asked.progress):
            first, count = first or _untried(Near(trace, row)), count + 1
        answer = Answer((first._replace(alike=count),) if first else (), 0, {}, {})
    if not answer.events:
        files = ", ".join(asked.options.files)
        raise UsageError(f"'{event}' never came in {files}: it did not happen, or was not switched on.")
    return answer


def _untried(near: Near) -> Explained:
    trace = near.trace
    return Explained(trace.paths[0], trace.files, _is_timed(trace), near.row.time_ns or 0, near.row, (), read=True)


def _is_timed(trace: TraceInput) -> bool:
    return trace.look.stamp is not None


def _with_lines(events: Sequence[Explained]) -> Iterator[Explained]:
    """The events with the numbers of their lines, where these can be found by stamp and text."""
    places: dict[tuple[str, bytes], tuple[str, int]] = {}
    for log, files in dict.fromkeys((one.path, one.files) for one in events):
        texts = [text for one in events if one.path == log for text in _as_written(one.row)]
        for path in files:
            opened = open_input(path, again=True)
            for text, number in _found(opened.blocks(), texts):
                places.setdefault((log, text), (path, number))
            opened.close()
    for one in events:
        file, line = next((places[one.path, text] for text in _as_written(one.row) if (one.path, text) in places), ("", None))
        yield one._replace(file=file, line=line)


def _as_written(row: Row) -> Iterator[bytes]:
    """How a log's line may look, from the stamp on: up to QEMU 10.0, from 10.1 on, without fractions."""
    if row.time_ns is None:
        return
    seconds, rest = divmod(row.time_ns, SECOND_NS)
    text = row.event.encode() + (b" " + row.raw if row.raw else b"")
    moment = f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
    yield f"@{seconds}.{rest // 1000:06d}:".encode() + text
    yield f"{moment}.{rest // 1000:06d}Z ".encode() + text
    yield f"{moment}Z ".encode() + text


def _found(blocks: Iterator[bytes], texts: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """The number of the first line that each text stands in."""
    left, lines, rest = list(dict.fromkeys(texts)), 1, b""
    for block in blocks:
        data = rest + block
        whole = data.rfind(b"\n") + 1
        for text in left.copy():
            place = data.find(text, 0, whole)
            while place >= 0 and data[place + len(text) : whole].split(b"\n", 1)[0].strip():
                place = data.find(text, place + 1, whole)  # only the beginning of a longer one
            if place >= 0:
                yield text, lines + data.count(b"\n", 0, place)
                left.remove(text)
        lines += data.count(b"\n", 0, whole)
        rest = data[whole:]


# --- in words -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Words:
    """What is needed to tell of the events of an answer: the rules and the declarations."""

    answer: Answer
    rules: Rules
    catalogue: Catalogue

    def lines(self, one: Explained) -> Iterator[str]:
        """An event, its arguments, and what each rule tried with it; what had an effect comes first."""
        row = one.row
        thread = "" if row.thread is None else f", thread {row.thread}"
        place = one.path if one.line is None else f"{one.file}:{one.line}"
        yield f"{place}: {_moment(one.time_ns, timed=one.timed)}{thread}"
        yield f"  {row.event} {_text(row)}".rstrip()
        arguments = self._arguments(row, self.answer.versions.get(one.path))
        if arguments:
            yield "  arguments: " + ", ".join(f"{name} = {value}" for name, value in arguments.items())
        if one.alike > 1:
            yield f"  {one.alike:,} such events went this way; this is the first."
        if not one.read:
            yield "  Its text fits no declaration that is known, so no rule got it; give that QEMU's own with --catalogue."
        yield from self._unused(one)
        for attempt in sorted(one.attempts, key=lambda a: a.outcome not in _EFFECTS):
            yield from self._attempt(attempt, timed=one.timed)

    def _arguments(self, row: Row, version: str | None) -> dict[str, Value]:
        names = list(dict.fromkeys(a.name for spec in self.catalogue.variants(row.event) for a in spec.arguments))
        decoder = TextDecoder(self.catalogue, {row.event: names})
        if version:
            first, _, last = version.partition(" - ")
            decoder.limit(first, last or first)
        values = decoder.decode(row.event, row.raw) or ()
        return {name: value for name, value in zip(names, values, strict=False) if value is not None}

    def _unused(self, one: Explained) -> Iterator[str]:
        """Where nothing was tried with an event: that no rule names it, or that it is counted without being looked at."""
        if one.attempts or not one.read:
            return
        event = one.row.event
        metrics = [use.rule for use in uses_of(self.rules).get(event, ()) if use.how == "metric"]
        if metrics:
            yield f"  It is only counted, for {', '.join(metrics)}; no span comes of it."
        elif event in self.rules.unmapped:
            yield f"  No rule uses it, on purpose: {self.rules.unmapped[event]}."
        else:
            yield "  No rule uses it."

    def _attempt(self, attempt: Attempt, *, timed: bool) -> Iterator[str]:
        rule = next((r for r in self.rules.spans if r.id == attempt.rule), None) if attempt.how in _PAIRED else None
        path = next((u.path for u in uses_of(self.rules).get(attempt.row.event, ()) if _same(u, attempt)), "")
        yield f"  {attempt.rule} ({path}), as {_ROLES[attempt.how]}: {_sentence(attempt)}"
        if attempt.condition:
            yield f"    when {attempt.condition}: {_truth(attempt.met)}"
            known = [f"{word} = {value}" for word, value in attempt.now._asdict().items() if word in attempt.condition.split()]
            yield from ([f"      {', '.join(known)}"] if known else [])
        if rule is not None and (rule.thread or rule.key_names) and (attempt.key or attempt.how != "event"):
            yield f"    key: {_key(attempt.key, rule)}"
        if rule is not None:
            yield from self._open(attempt, rule, timed=timed)
        for word, span_id in (("span", attempt.span_id), ("span before", attempt.other_id)):
            if span_id:
                yield f"    {word} {span_id.hex()}: {self._span(span_id, timed=timed)}"

    def _open(self, attempt: Attempt, rule: SpanRule, *, timed: bool) -> Iterator[str]:
        if not attempt.open:
            yield "    open before: none"
            return
        more = attempt.open_count - len(attempt.open)
        parts = [f"{one.span_id.hex()}{_key_of(one, rule)} since {_moment(one.start_ns, timed=timed)}" for one in attempt.open]
        yield f"    open before: {attempt.open_count}{', the youngest first' if attempt.open_count > 1 else ''}"
        yield from (f"      {part}" for part in parts)
        if more:
            yield f"      and {more} older"

    def _span(self, span_id: bytes, *, timed: bool) -> str:
        span = self.answer.finished.get(span_id)
        if span is None:
            return "was only counted, as it is not among the slowest that its rule keeps"
        marks = ", incomplete" if ("otelbridge.incomplete", True) in span.attributes else ""
        marks += f", error: {span.message}" if span.status == ERROR else ""
        times = f"{_moment(span.start_ns, timed=timed)} to {_moment(span.end_ns, timed=timed)}"
        length = f", {duration_text(span.end_ns - span.start_ns)}" if timed else ""
        return f"{span.name}, {times}{length}{marks}"


_EFFECTS = ("done", "moved", "replaced")
_PAIRED = ("begin", "end", "event")
_ROLES = {
    "begin": "begin",
    "end": "end",
    "event": "span event",
    "state": "state",
    "metric": "metric",
    "role": "evidence of the role",
    "reason": "reason of a failure",
}
_SENTENCES = {
    ("begin", "done"): "it began a span",
    ("begin", "moved"): "it moved the begin of the open span, as a better one than the one before",
    ("begin", "replaced"): "it began a span, and the open one with the same key ended",
    ("begin", "condition"): "it began nothing, the condition is not met",
    ("begin", "ignored"): "it began nothing, a span with this key is open and the first begin counts",
    ("begin", "worse"): "it began nothing, the open span has a better begin already",
    ("end", "done"): "it ended a span",
    ("end", "condition"): "it ended nothing, the condition is not met",
    ("end", "none_open"): "it ended nothing, no span of this rule was open",
    ("end", "other_key"): "it ended nothing, no open span has this key",
    ("event", "done"): "it was put into a span",
    ("event", "condition"): "it was put nowhere, the condition is not met",
    ("event", "none_open"): "it was put nowhere, no span that it belongs to was open",
    ("state", "done"): "it entered the state",
    ("state", "no_effect"): "it had no effect, this state does not open what is closed",
    ("metric", "done"): "it was measured",
    ("metric", "condition"): "it was not measured, the condition is not met",
    ("metric", "no_effect"): "it was not measured, it gives no number",
    ("role", "done"): "it speaks for the role",
    ("reason", "done"): "it becomes the description if this ends in an error",
    ("reason", "none_open"): "it describes nothing, none is open",
}


def _moment(time_ns: int, *, timed: bool) -> str:
    return moment_text(time_ns) if timed else f"line {time_ns // 1000}"


def _sentence(attempt: Attempt) -> str:
    detail = f" '{attempt.detail}'" if attempt.detail else ""
    before = f" after '{attempt.open[0].key[0]}'" if attempt.how == "state" and attempt.open else ""
    return f"{_SENTENCES[attempt.how, attempt.outcome]}{detail}{before}"


def _same(use: Use, attempt: Attempt) -> bool:
    return (use.how, use.rule) == (attempt.how, attempt.rule)


def _truth(value: Value | None) -> str:
    return "no value, an argument is missing" if value is None else "yes" if value else "no"


def _key(key: Key, rule: SpanRule) -> str:
    names = list(rule.key_names)
    if len(key) > len(names):
        names.insert(0, "thread")
    return ", ".join(f"{name} = {value}" for name, value in zip(names, key, strict=False)) or "none, only the order decides"


def _key_of(one: Open, rule: SpanRule) -> str:
    return f" ({_key(one.key, rule)})" if one.key else ""
