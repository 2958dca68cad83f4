"""Draws a Picture for a person at a terminal: what happened, how long each part took, and what filled the downtime."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.text import Text

from otelbridge.records import ERROR, SECOND_NS
from otelbridge.view.cells import padded, wrapped
from otelbridge.view.picture import (
    FAULT_DURATION,
    SECTIONS,
    TRANSFERRED,
    Downtime,
    Kept,
    Migration,
    Picture,
    Side,
    Slowest,
    Tally,
    device,
    histogram_total,
    number_total,
)
from otelbridge.view.text import bytes_text, clean, count_text, duration_text, time_text

_PLAIN_WIDTH = 100
_MIN_WIDTH = 40
_MAX_BAR = 100
_DRAWN = 5
_PASS_ROWS = 12
_FILL_ROWS = 8
_TOP = 5
_ERROR_ROWS = 10
_LOSS_ROWS = 10
_EVENT_ROWS = 8
_TEMPO_SLACK_NS = 120 * SECOND_NS
"""`ingestion_time_range_slack` of Tempo as shipped: what is older when it arrives is not found by search."""
_WORTH_SAYING_NS = SECOND_NS
_PAGES = ("qemu.migration.channel.pages", "qemu.migration.channel.zero_pages")

Part = str | tuple[str, str]
"""Text, or text with a style of rich."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of a drawing."""

    full: str
    thin: str
    branch: str
    last: str
    trunk: str
    ellipsis: str
    dash: str


_BLOCKS = Glyphs("█", "▏", "├─ ", "└─ ", "│  ", "…", "–")  # noqa: RUF001
_ASCII = Glyphs("#", "|", "|- ", "`- ", "|  ", "...", "-")


def draw(picture: Picture, accounting: Mapping[str, Any], notes: Sequence[str], console: Console, *, now_ns: int) -> None:
    """Print the migrations of a conversion, its accounting, the notes and the trace ids.

    A terminal gets its own width and, unless NO_COLOR holds anything (https://no-color.org), colours. Anything else gets
    plain text without escape sequences, 100 columns wide or as wide as COLUMNS says.

    Args:
        picture: What the sink has kept.
        accounting: The document that `--accounting` writes.
        notes: Sentences for the user.
        console: Where to print.
        now_ns: The time of day in UTC, to tell which traces are too old for a search.
    """
    page = Page(console)
    migrations = picture.migrations
    if not migrations:
        _draw_nothing(page, picture, accounting)
    if len(migrations) > 1:
        _draw_overview(page, picture, migrations)
    for migration in _worth_drawing(migrations):
        Drawing(page, picture, migration).draw()
    _draw_alone(page, picture if migrations else None)
    _draw_accounting(page, accounting)
    for note in notes:
        page.paragraph("note  ", note, "yellow")
    _draw_trace_ids(page, migrations, now_ns)


# --- the page ---------------------------------------------------------------------------------------


class Page:
    """Lines that fit the width of a console, with nothing in them that a terminal would act on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._styled = console.is_terminal and not os.environ.get("NO_COLOR")
        self.width = _width(console)
        self.glyphs = _BLOCKS if _can_show("".join(astuple(_BLOCKS)), console.encoding) else _ASCII
        self._empty = True

    def line(self, *parts: Part) -> None:
        """One line; what does not fit is cut off and marked."""
        text = Text()
        for part in parts:
            words, style = (part, "") if isinstance(part, str) else part
            text.append(self._showable(words), style if self._styled else None)
        text.rstrip()
        if text.cell_len > self.width:
            text.truncate(self.width - len(self.glyphs.ellipsis))
            text.append(self.glyphs.ellipsis)
        self._console.print(text, soft_wrap=True, highlight=False)
        self._empty = False

    def heading(self, *parts: Part) -> None:
        """A line that begins something, with an empty one before it."""
        if not self._empty:
            self.line()
        self.line(*parts)

    def paragraph(self, label: str, text: str, style: str = "", max_lines: int = 6) -> None:
        """A label and a text beside it that may take several lines."""
        room = self.width - len(label)
        for number, line in enumerate(wrapped(self._showable(text), room, max_lines, self.glyphs.ellipsis)):
            self.line((label if number == 0 else " " * len(label), "dim"), (line, style))

    def cell(self, text: str, width: int, *, right: bool = False) -> str:
        """A column of the given width."""
        return padded(self._showable(text), width, self.glyphs.ellipsis, right=right)

    def bar(self, start: float, end: float, width: int) -> str:
        """A bar from `start` to `end`, both shares of the width; something always shows."""
        if width < 1:
            return ""
        first = min(int(start * width), width - 1)
        cells = round(end * width) - first
        return " " * first + (self.glyphs.full * min(cells, width - first) if cells > 0 else self.glyphs.thin)

    def more(self, count: int, what: str = "more") -> None:
        """Says how much was left out, if anything was."""
        if count > 0:
            self.line((f"  {self.glyphs.ellipsis} {count_text(count)} {what}", "dim"))

    def _showable(self, text: str) -> str:
        harmless = clean(text)
        if harmless.isascii():
            return harmless
        encoding = self._console.encoding
        return harmless.encode(encoding, "backslashreplace").decode(encoding)


def _width(console: Console) -> int:
    if console.is_terminal:
        return max(_MIN_WIDTH, console.width)
    columns = os.environ.get("COLUMNS", "")
    return max(_MIN_WIDTH, int(columns)) if columns.isdecimal() else _PLAIN_WIDTH


def _can_show(characters: str, encoding: str) -> bool:
    try:
        characters.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# --- times, or lines where there are none -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clock:
    """How lengths and moments of a migration are shown: as time, or as lines of the log where it has no stamps."""

    kind: str
    dash: str

    @property
    def ordered(self) -> bool:
        """Whether there is an order only."""
        return self.kind == "none"

    def length(self, length_ns: int) -> str:
        """A length: `2.04 s`, or `33 lines`."""
        return count_text(length_ns // 1000, "line") if self.ordered else duration_text(length_ns)

    def extent(self, kept: Kept) -> str:
        """Where a span lies: how long it took, or `line 12 - 345`."""
        if self.ordered:
            return f"line {kept.span.start_ns // 1000} {self.dash} {kept.span.end_ns // 1000}"
        return f"> {self.length(kept.length_ns)}" if kept.incomplete else self.length(kept.length_ns)

    def moment(self, time_ns: int, origin_ns: int) -> str:
        """A moment: `+12 s` after the begin, or `line 12`."""
        if self.ordered:
            return f"line {time_ns // 1000}"
        offset = self.length(time_ns - origin_ns)
        return offset if offset.startswith("-") else f"+{offset}"


def _clock(migration: Migration, dash: str) -> Clock:
    kinds = {str(side.root.attributes.get("otelbridge.clock", "")) for side in migration.sides if side.root is not None}
    return Clock("none" if "none" in kinds else "assumed" if "assumed" in kinds else "", dash)


# --- one migration ----------------------------------------------------------------------------------


class Drawing:
    """One migration on a page."""

    def __init__(self, page: Page, picture: Picture, migration: Migration) -> None:
        self._page, self._picture, self._migration = page, picture, migration
        self._clock = _clock(migration, page.glyphs.dash)
        self._window_ns = migration.window_ns()
        self._length_width = 22 if self._clock.ordered else 12
        self._name_width = min(48, max(18, (page.width - self._length_width) // 2))
        self._bar_width = min(_MAX_BAR, page.width - self._name_width - self._length_width - 2)

    def draw(self) -> None:
        """Print all of it."""
        self._head()
        self._tree()
        self._errors()
        for downtime in self._migration.downtimes:
            self._downtime(downtime)
        self._passes()
        self._sections("slowest sections saved", "savevm.section")
        self._sections("slowest sections loaded", "loadvm.section")
        self._handshakes()
        self._postcopy()
        self._multifd()
        self._tallies("return path", [name for name in self._migration.tallies if name.startswith("return_path")])
        self._moments()
        self._tallies("other spans", self._other_names())
        self._incomplete()

    # --- the head ---------------------------------------------------------------------------------

    def _head(self) -> None:
        page, migration = self._page, self._migration
        style = "bold red" if migration.failed else "bold"
        page.heading((summary(migration, self._clock), style))
        for number in migration.ordered_sides():
            side = migration.sides[number]
            page.line((f"  {side.role or 'process':<13}", "dim"), _process(side))
        if self._clock.ordered:
            page.paragraph(
                "  no times     ",
                "The log has no time stamps: what follows is an order, in lines of the log, and nothing of it is a duration. "
                "Start QEMU with -msg timestamp=on to get times, or tell when the log begins with --assume-start.",
                "yellow",
            )
            return
        page.line(("  began        ", "dim"), time_text(self._window_ns[0]))
        if self._clock.kind == "assumed":
            text = "The times are assumed (--assume-start): the log has no time stamps. Only their order comes from the log."
            page.paragraph("  times        ", text, "yellow")
        for number in migration.ordered_sides():
            for text in _clock_words(migration.sides[number]):
                page.paragraph("  clocks       ", text, "yellow")
        self._transferred()

    def _transferred(self) -> None:
        total = sum(number_total(self._own_points(n, TRANSFERRED)) for n in self._migration.ordered_sides())
        seconds = _length_ns(self._migration) / SECOND_NS
        if total > 0 and seconds > 0:
            text = f"{bytes_text(int(total))}, {bytes_text(int(total / seconds))}/s over the whole"
            self._page.line(("  transferred  ", "dim"), text)

    def _own_points(self, side: int, metric: str) -> list[Any]:
        """A process's counters count over all its migrations, so they say something of this one if it is the only one."""
        resource = self._migration.sides[side].resource
        owners = [m for m in self._picture.migrations if any(s.resource == resource for s in m.sides)]
        return self._picture.last_points(resource, metric) if len(owners) == 1 else []

    # --- the tree ---------------------------------------------------------------------------------

    def _tree(self) -> None:
        self._page.line()
        numbers = self._migration.ordered_sides()
        top, *below = numbers
        children = [(kept, _state_name(kept)) for kept in self._states(top)]
        children += [(d.kept, "downtime") for d in self._migration.downtimes if d.kept.side == top]
        self._span_row("", self._migration.sides[top].root, _root_name(self._migration.sides[top]))
        for place, (kept, name) in enumerate(children, 1):
            self._span_row(self._twig(last=place == len(children) and not below), kept, name)
        for place, number in enumerate(below, 1):
            self._branch(number, last=place == len(below))
        not_held = sum(side.states_not_held for side in self._migration.sides)
        self._page.more(not_held, "more states" if not_held > 1 else "more state")

    def _branch(self, number: int, *, last: bool) -> None:
        """Another process below the first one, with its states."""
        side = self._migration.sides[number]
        self._span_row(self._twig(last=last), side.root, _root_name(side))
        trunk = "   " if last else self._page.glyphs.trunk
        states = self._states(number)
        for place, kept in enumerate(states, 1):
            self._span_row(trunk + self._twig(last=place == len(states)), kept, _state_name(kept))

    def _twig(self, *, last: bool) -> str:
        return self._page.glyphs.last if last else self._page.glyphs.branch

    def _states(self, number: int) -> list[Kept]:
        return sorted(self._migration.sides[number].states, key=lambda kept: (kept.span.start_ns, kept.span.end_ns))

    def _span_row(self, twig: str, kept: Kept | None, name: str) -> None:
        if kept is None:
            return
        page = self._page
        style = "red" if kept.span.status == ERROR else "yellow" if name == "downtime" else "cyan"
        label = f"{twig}{name} (no end seen)" if kept.incomplete else twig + name
        page.line(
            page.cell(label, self._name_width),
            page.cell(self._clock.extent(kept), self._length_width, right=True),
            "  ",
            (self._bar(kept), style),
        )

    def _bar(self, kept: Kept) -> str:
        start_ns, end_ns = self._window_ns
        side = self._migration.sides[kept.side]
        if self._clock.ordered and side.root is not None:  # each file counts its own lines
            start_ns, end_ns = side.root.span.start_ns, side.root.span.end_ns
        whole_ns = max(1, end_ns - start_ns)
        begin, end = ((t - start_ns) / whole_ns for t in (kept.span.start_ns, kept.span.end_ns))
        return self._page.bar(min(1.0, max(0.0, begin)), min(1.0, max(0.0, end)), self._bar_width)

    # --- the downtime -----------------------------------------------------------------------------

    def _downtime(self, downtime: Downtime) -> None:
        page, kept = self._page, downtime.kept
        basis = kept.attributes.get("qemu.migration.downtime.basis")
        since = f" (since {basis})" if basis else ""
        page.heading((f"downtime {self._clock.extent(kept)}{since}: what filled it", "bold"))
        groups = _fill_groups(downtime)
        for (side, name), (count, within_ns) in groups[:_FILL_ROWS]:
            times = f" x{count}" if count > 1 else ""
            self._share_row(f"{self._side_tag(side)}{name}{times}", within_ns, kept.length_ns, "yellow")
        page.more(len(groups) - _FILL_ROWS)
        if self._migration.details is None:
            page.line(("  what lies in it was not kept: there are too many migrations in this conversion", "dim"))
        elif (uncovered_ns := downtime.uncovered_ns()) is None:
            page.line(("  only the longest of what lies in it were kept", "dim"))
        elif not groups or not self._clock.ordered:
            self._share_row("in no span of this host", uncovered_ns, kept.length_ns, "dim")

    def _share_row(self, name: str, part_ns: int, whole_ns: int, style: str) -> None:
        page, share = self._page, part_ns / max(1, whole_ns)
        name_width = min(60, max(22, page.width - 32))
        width = page.width - name_width - 20
        page.line(
            page.cell(f"  {name}", name_width),
            page.cell(self._clock.length(part_ns), 12, right=True),
            page.cell("" if self._clock.ordered else f"{share:.0%}", 6, right=True),
            "  ",
            (page.bar(0, min(1.0, share), min(_MAX_BAR, width)), style),
        )

    def _side_tag(self, side: int) -> str:
        """Which host, where there is more than one."""
        sides = self._migration.sides
        if len(self._migration.ordered_sides()) < 2:  # noqa: PLR2004
            return ""
        return {"source": "src ", "destination": "dst "}.get(sides[side].role, "")

    # --- groups -----------------------------------------------------------------------------------

    def _passes(self) -> None:
        tally, details = self._migration.tallies.get("ram.bitmap_sync"), self._migration.details
        if tally is None or details is None or not details.passes:
            return
        page = self._page
        page.heading((f"passes over memory: {count_text(tally.count)}", "bold"))
        took = "lines" if self._clock.ordered else "sync took"
        head = [page.cell("pass", 8, right=True), page.cell("dirty pages", 15, right=True), page.cell(took, 12, right=True)]
        page.line(("".join([*head, page.cell("until next", 12, right=True)]), "dim"))
        ordered = sorted(details.passes, key=lambda kept: kept.span.start_ns)
        last = details.last_pass or ordered[-1]
        most = max([_integer(kept, "qemu.migration.dirty_pages") or 0 for kept in [*ordered, last]] + [1])
        if tally.count <= _PASS_ROWS:
            for kept, following in zip(ordered, [*ordered[1:], None], strict=True):
                self._pass_row(kept, following, most)
            return
        shown = _PASS_ROWS - 1
        for kept, following in pairwise(ordered[: shown + 1]):
            self._pass_row(kept, following, most)
        page.more(tally.count - _PASS_ROWS)
        self._pass_row(last, None, most)

    def _pass_row(self, kept: Kept, following: Kept | None, most: int) -> None:
        page, width = self._page, self._page.width - 49
        number, dirty = _integer(kept, "qemu.migration.pass"), _integer(kept, "qemu.migration.dirty_pages")
        until = self._clock.length(following.span.start_ns - kept.span.start_ns) if following is not None else ""
        page.line(
            page.cell("?" if number is None else count_text(number), 8, right=True),
            page.cell("?" if dirty is None else count_text(dirty), 15, right=True),
            page.cell(self._clock.length(kept.length_ns), 12, right=True),
            page.cell(until, 12, right=True),
            "  ",
            (page.bar(0, (dirty or 0) / most, min(40, width)) if dirty else "", "cyan"),
        )

    def _sections(self, title: str, name: str) -> None:
        found = [(section, side, tally) for (span, section, side), tally in self._migration.sections.items() if span == name]
        found.sort(key=lambda entry: (-entry[2].total_ns, -entry[2].longest_ns, entry[0]))
        self._table(title, [(self._side_tag(side) + section, tally) for section, side, tally in found])

    def _tallies(self, title: str, names: Iterable[str]) -> None:
        tallies = [(name, self._migration.tallies[name]) for name in names]
        self._table(title, sorted(tallies, key=lambda entry: (-entry[1].total_ns, entry[0])))

    def _table(self, title: str, rows: Sequence[tuple[str, Tally]]) -> None:
        if not rows:
            return
        page = self._page
        name_width = min(60, page.width - 35)
        head = [page.cell(words, width, right=True) for words, width in (("count", 9), ("total", 13), ("longest", 13))]
        page.heading((page.cell(title, name_width), "bold"), ("".join(head), "dim"))
        for name, tally in rows[:_TOP]:
            page.line(
                page.cell(f"  {name}", name_width),
                page.cell(count_text(tally.count), 9, right=True),
                page.cell(self._clock.length(tally.total_ns), 13, right=True),
                page.cell(self._clock.length(tally.longest_ns), 13, right=True),
            )
        page.more(len(rows) - _TOP)

    def _slowest(self, name: str) -> list[Kept]:
        details = self._migration.details
        return details.by_name.get(name, Slowest(0)).longest_first() if details is not None else []

    def _handshakes(self) -> None:
        tally = self._migration.tallies.get("tls.handshake")
        if tally is None:
            return
        self._page.heading((f"TLS handshakes: {count_text(tally.count)}", "bold"))
        slowest = self._slowest("tls.handshake")
        for kept in slowest[:_TOP]:
            where = kept.attributes.get("server.address")
            name = f"{self._side_tag(kept.side)}{kept.attributes.get('qemu.migration.channel', 'channel')}"
            self._detail_row(kept, f"{name} to {where}" if where else name, "failed" if kept.span.status == ERROR else "")
        self._page.more(tally.count - min(_TOP, len(slowest)))

    def _postcopy(self) -> None:
        names = [name for name in self._migration.tallies if name.startswith("postcopy.") and name != "postcopy.fault"]
        faults = self._migration.tallies.get("postcopy.fault")
        if faults is not None:
            self._faults(faults)
        self._tallies("postcopy", names)

    def _faults(self, kept_faults: Tally) -> None:
        points = [p for n in range(len(self._migration.sides)) for p in self._own_points(n, FAULT_DURATION)]
        count, seconds = histogram_total(points)
        title = f"postcopy faults: {count_text(kept_faults.count)} kept"
        if count:
            blocked = self._clock.length(int(seconds * SECOND_NS))
            title += f"; {count_text(count)} in all, guest threads blocked for {blocked} in total"
        self._page.heading((title, "bold"))
        slowest = self._slowest("postcopy.fault")
        for kept in slowest[:_TOP]:
            block, page_address = (kept.attributes.get(f"qemu.migration.{key}", "?") for key in ("ram_block", "page.address"))
            self._detail_row(kept, f"{block} {page_address}", self._clock.moment(kept.span.start_ns, self._window_ns[0]))
        self._page.more(kept_faults.count - min(_TOP, len(slowest)))

    def _multifd(self) -> None:
        for name in ("multifd.send", "multifd.recv"):
            tally = self._migration.tallies.get(name)
            if tally is None:
                continue
            self._page.heading((f"{name}: {count_text(tally.count, 'channel')}", "bold"))
            slowest = self._slowest(name)
            for kept in slowest[:_TOP]:
                self._detail_row(kept, f"channel {kept.attributes.get('qemu.migration.channel.id', '?')}", _carried(kept))
            self._page.more(tally.count - min(_TOP, len(slowest)))

    def _detail_row(self, kept: Kept, name: str, rest: str) -> None:
        page = self._page
        page.line(
            page.cell(f"  {name}", self._name_width),
            page.cell(self._clock.extent(kept), self._length_width, right=True),
            "  ",
            (rest, "red" if kept.span.status == ERROR else "dim"),
        )

    def _moments(self) -> None:
        """What has a moment but no length: cancel, throttle, errors, the switch-over."""
        numbers = self._migration.ordered_sides()
        found = [(moment, n, name) for n in numbers for name, moment in self._migration.sides[n].moments.items()]
        if not found:
            return
        page = self._page
        found.sort(key=lambda entry: entry[0].first_ns)
        page.heading(("events", "bold"))
        for moment, number, name in found[:_PASS_ROWS]:
            when = self._clock.moment(moment.first_ns, self._window_ns[0])
            times = f" x{count_text(moment.count)}" if moment.count > 1 else ""
            page.line(page.cell(when, 14, right=True), f"  {self._side_tag(number)}{name}{times}")
        page.more(len(found) - _PASS_ROWS)

    def _other_names(self) -> list[str]:
        states = {kept.span.name for side in self._migration.sides for kept in side.states}
        drawn = SECTIONS | states | {"migration", "migration.downtime", "ram.bitmap_sync", "tls.handshake"}
        prefixes = ("return_path", "postcopy.", "multifd.")
        return [name for name in self._migration.tallies if name not in drawn and not name.startswith(prefixes)]

    # --- what went wrong --------------------------------------------------------------------------

    def _errors(self) -> None:
        migration, page = self._migration, self._page
        if not migration.error_count:
            return
        page.heading((f"errors: {count_text(migration.error_count)}", "bold red"))
        for kept in sorted(migration.errors, key=lambda k: k.span.end_ns)[:_ERROR_ROWS]:
            what = f"{self._side_tag(kept.side)}{kept.span.name}{_of(kept)}: {kept.span.message or 'no reason given'}"
            when = self._clock.moment(kept.span.end_ns, self._window_ns[0])
            page.paragraph(page.cell(when, 14, right=True) + "  ", what, "red", 3)
        page.more(migration.error_count - min(_ERROR_ROWS, len(migration.errors)))

    def _incomplete(self) -> None:
        found = [(name, tally.incomplete) for name, tally in self._migration.tallies.items() if tally.incomplete]
        if found:
            found.sort(key=lambda entry: (-entry[1], entry[0]))
            words = ", ".join(f"{count_text(count)} {name}" for name, count in found)
            self._page.heading(("no end seen", "bold yellow"))
            self._page.paragraph("  ", f"{words}. They are drawn up to the last moment that is known.", "", 4)


def summary(migration: Migration, clock: Clock) -> str:
    """The migration in one line: how it ended, how long it took, how long the guest stood still."""
    first = migration.sides[migration.ordered_sides()[0]]
    what = "snapshot" if first.role == "snapshot" else "migration"
    words = [f"{what} {_outcome(first)}"]
    if not clock.ordered:
        words[0] += f" after {clock.length(_length_ns(migration))}"
        stopped_ns = sum(downtime.kept.length_ns for downtime in migration.downtimes)
        if migration.downtimes:
            words.append(f"guest stopped for {clock.length(stopped_ns)}")
    if first.root is not None and (mode := first.root.attributes.get("qemu.migration.mode")):
        words.append(str(mode))
    return ", ".join(words)


def _length_ns(migration: Migration) -> int:
    """How long it took: by its source, where that saw the end, since the other host may have another clock."""
    first = migration.sides[migration.ordered_sides()[0]]
    if first.root is not None and not first.root.incomplete:
        return first.root.length_ns
    start_ns, end_ns = migration.window_ns()
    return end_ns - start_ns


def _outcome(side: Side) -> str:
    if side.root is None or side.root.incomplete:
        return "without a known end"
    return str(side.root.attributes.get("qemu.migration.state", "ended"))


def _process(side: Side) -> str:
    """`src.log, QEMU 6.1.0 - 7.2.0, host-a, pid 4711`, as far as it is known."""
    resource = dict(side.resource)
    version = side.root.attributes.get("qemu.version") if side.root is not None else None
    known = [
        side.file or "unnamed log",
        f"QEMU {version}" if version else "QEMU of unknown version",
        str(resource.get("host.name", "")),
        str(resource.get("qemu.domain.name", "")),
        f"pid {resource['process.pid']}" if "process.pid" in resource else "",
    ]
    return ", ".join(filter(None, known))


def _clock_words(side: Side) -> Iterator[str]:
    """That the times of a host were put on the other's clock, or why a large difference was left; nothing where they agree."""
    name = side.file or "its log"
    low, high, applied = (_offset(side, which) for which in ("min", "max", "applied"))
    if applied:
        ahead = "ahead of" if applied > 0 else "behind"
        about = "at least " if low is None or high is None else ""
        off = "" if low is None or high is None else f", give or take {duration_text((high - low + 1) // 2)}"
        yield (
            f"{name}: its clock is {about}{_exact(abs(applied))} {ahead} the source's{off}; "
            f"its times are shown as much {'earlier' if applied > 0 else 'later'}."
        )
    elif low is None and high is not None and high >= _WORTH_SAYING_NS:
        yield (
            f"{name}: its clock may be up to {duration_text(high)} ahead of the source's; nothing that it sent tells, so its "
            "times are as they are in the log."
        )


def _exact(length_ns: int) -> str:
    """A length to the microsecond, since what it may be wrong by is shown beside it."""
    return f"{length_ns / SECOND_NS:.6f} s" if length_ns >= SECOND_NS else duration_text(length_ns)


def _offset(side: Side, which: str) -> int | None:
    value = side.root.attributes.get(f"otelbridge.clock.offset_{which}") if side.root is not None else None
    return value if isinstance(value, int) else None


def _root_name(side: Side) -> str:
    return side.role or "migration"


def _state_name(kept: Kept) -> str:
    return kept.span.name.removeprefix("migration.")


def _fill_groups(downtime: Downtime) -> list[tuple[tuple[int, str], tuple[int, int]]]:
    """(side, what) -> (how many, nanoseconds within the downtime), the largest first."""
    found: dict[tuple[int, str], tuple[int, int]] = {}
    for kept in downtime.fills:
        key = (kept.side, f"{kept.span.name}{_of(kept)}")
        count, within_ns = found.get(key, (0, 0))
        found[key] = (count + 1, within_ns + downtime.within_ns(kept))
    return sorted(found.items(), key=lambda entry: (-entry[1][1], entry[0]))


def _of(kept: Kept) -> str:
    return f" {name}" if (name := device(kept)) else ""


def _integer(kept: Kept, name: str) -> int | None:
    value = kept.attributes.get(name)
    return value if isinstance(value, int) else None


def _carried(kept: Kept) -> str:
    """`1,200 packets, 150,000 pages, 12 zero pages`, as far as it is known."""
    numbers = [("packet", _integer(kept, "qemu.migration.channel.packets"))]
    numbers += [(noun, _integer(kept, name)) for noun, name in zip(("page", "zero page"), _PAGES, strict=True)]
    return ", ".join(count_text(number, noun) for noun, number in numbers if number is not None)


# --- around the migrations --------------------------------------------------------------------------


def _worth_drawing(migrations: Sequence[Migration]) -> list[Migration]:
    """All of a few; of many those that failed, then the longest. In the order of their begins."""
    if len(migrations) <= _DRAWN:
        return list(migrations)

    def interest(migration: Migration) -> tuple[bool, bool, int]:
        start_ns, end_ns = migration.window_ns()
        return (migration.failed, migration.details is not None, end_ns - start_ns)

    chosen = sorted(migrations, key=interest, reverse=True)[:_DRAWN]
    return [migration for migration in migrations if any(migration is one for one in chosen)]


def _draw_overview(page: Page, picture: Picture, migrations: Sequence[Migration]) -> None:
    total = len(migrations) + picture.migrations_beyond
    page.heading((f"{count_text(total, 'migration')}", "bold"))
    for migration in migrations:
        first = migration.sides[migration.ordered_sides()[0]]
        clock = _clock(migration, page.glyphs.dash)
        when = clock.moment(migration.window_ns()[0], 0) if clock.ordered else time_text(migration.window_ns()[0])
        style = "red" if migration.failed else ""
        page.line("  ", (f"{when}  ", "dim"), (summary(migration, clock), style), (f"  {first.file}", "dim"))
    page.more(picture.migrations_beyond, f"more with {count_text(picture.spans_beyond, 'span')}, counted only")
    if len(migrations) > _DRAWN:
        page.line((f"  Drawn below: {_DRAWN}, those that failed before the longest.", "dim"))


def _draw_nothing(page: Page, picture: Picture, accounting: Mapping[str, Any]) -> None:
    spans = count_text(picture.spans_seen, "span")
    page.heading((f"no migration found: {spans}, and none of them is a migration", "bold yellow"))
    for name, count in picture.alone.most_common(_EVENT_ROWS):
        page.line(f"{count_text(count):>12}  span {name}")
    events: Mapping[str, int] = accounting.get("events", {})
    if not events:
        page.line("  no trace event was seen")
    else:
        page.line("  these events were seen:")
    for name, count in sorted(events.items(), key=lambda entry: (-entry[1], entry[0]))[:_EVENT_ROWS]:
        page.line(f"{count_text(count):>12}  {name}")
    page.more(len(events) - _EVENT_ROWS)
    if "migrate_set_state" not in events:
        page.paragraph("  ", "A migration is seen by its event migrate_set_state, which is not among them: trace it, too.")


def _draw_alone(page: Page, picture: Picture | None) -> None:
    if picture is None or not picture.alone:
        return
    page.heading(("spans outside any migration", "bold"))
    for name, count in picture.alone.most_common(_EVENT_ROWS):
        page.line(f"{count_text(count):>12}  {name}")
    page.more(len(picture.alone) - _EVENT_ROWS)


def _draw_accounting(page: Page, accounting: Mapping[str, Any]) -> None:
    page.heading(("accounting", "bold"))
    page.line(("  read       ", "dim"), _read_text(accounting))
    spans, points = accounting.get("spans", {}), accounting.get("points", {})
    kept = f"; {count_text(spans['not_kept'])} more only counted" if spans.get("not_kept") else ""
    page.line(("  delivered  ", "dim"), f"{_went('span', spans)}, {_went('point', points)}{kept}")
    losses: Sequence[str] = accounting.get("loss", ())
    if not losses:
        page.line(("  lost       ", "dim"), "nothing was lost")
    for number, loss in enumerate(losses[:_LOSS_ROWS]):
        page.paragraph("  lost       " if number == 0 else " " * 13, loss, "red", 3)
    page.more(len(losses) - _LOSS_ROWS)


def _read_text(accounting: Mapping[str, Any]) -> str:
    inputs: Sequence[Mapping[str, Any]] = accounting.get("inputs", ())
    units: dict[str, int] = {}
    for one in inputs:
        noun = str(one.get("units", "lines")).removesuffix("s")
        units[noun] = units.get(noun, 0) + int(one.get("total", 0))
    events = sum(accounting.get("events", {}).values())
    words = [count_text(len(inputs), "input"), *(count_text(number, noun) for noun, number in units.items())]
    return ", ".join([*words, count_text(events, "trace event")])


def _went(noun: str, numbers: Mapping[str, int]) -> str:
    """`312 spans`, or `300 of 312 spans (10 spooled, 2 rejected)`."""
    delivered = numbers.get("delivered", 0)
    others = {word: numbers.get(word, 0) for word in ("spooled", "rejected")}
    if not any(others.values()):
        return count_text(delivered, noun)
    total = delivered + sum(others.values())
    where = ", ".join(f"{count_text(number)} {word}" for word, number in others.items() if number)
    return f"{count_text(delivered)} of {count_text(total, noun)} ({where})"


def _draw_trace_ids(page: Page, migrations: Sequence[Migration], now_ns: int) -> None:
    if not migrations:
        return
    page.heading(("trace id" if len(migrations) == 1 else "trace ids", "bold"))
    for migration in migrations:
        page.line(f"  {migration.trace_id.hex()}")
    old = [m for m in migrations if now_ns - m.window_ns()[1] > _TEMPO_SLACK_NS]
    if old:
        which = "This trace is" if len(migrations) == 1 else f"{count_text(len(old))} of these traces are"
        page.paragraph(
            "  ",
            f"{which} older than 2 minutes: Tempo takes what is so old and finds it by id, but by search only if its "
            "ingestion_time_range_slack (2m as shipped) is raised and the search gives start and end.",
            "dim",
        )
