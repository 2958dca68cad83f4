"""trace-events files: what QEMU's generator accepts is declared, everything else is said to be skipped."""

from __future__ import annotations

import pytest

from otelbridge.catalogue import catalogue_from
from otelbridge.catalogue.trace_events import parse_trace_events
from otelbridge.errors import CatalogueError
from otelbridge.records import Argument, EventSpec

STATE = 'migrate_set_state(const char *new_state) "new state %s"'
STATE_SPEC = EventSpec("migrate_set_state", (Argument("new_state", "const char *"),), "new state %s")
RATE = 'migration_rate_limit_pre(int ms) "%d ms"'
RATE_SPEC = EventSpec("migration_rate_limit_pre", (Argument("ms", "int"),), "%d ms")


def parsed(text: str) -> tuple[EventSpec, ...]:
    return parse_trace_events(text, "trace-events").specs


def skipped(text: str) -> list[tuple[int, str]]:
    return [(line.line, line.text) for line in parse_trace_events(text, "trace-events").skipped]


# --- the syntax -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "arguments", "printed"),
    [
        ('e(void) ""', "", ""),
        ('e(void)  "text alone"', "", "text alone"),
        ("e(void)", "", ""),
        ('e (int a) "%d"', "int a", "%d"),
        ('e(int a)     "%d"', "int a", "%d"),
        ('e(int a,  int b) "%d %d"', "int a; int b", "%d %d"),
        ('e(const char *s) "%s"', "const char * s", "%s"),
        ('e(const char* s) "%s"', "const char * s", "%s"),
        ('e(char * s) "%s"', "char * s", "%s"),
        ('e(void *p, const char **list) "%p %p"', "void * p; const char * * list", "%p %p"),
        ('e(unsigned long long n) "%llu"', "unsigned long long n", "%llu"),
        ('e(struct vhost_dev *dev) "dev: %p"', "struct vhost_dev * dev", "dev: %p"),
        ('e(uint64_t n) "%" PRIu64', "uint64_t n", "%lu"),
        ('e(uint64_t n) "%"PRIu64', "uint64_t n", "%lu"),
        ('e(uint64_t n) "%"PRIu64", x"', "uint64_t n", "%lu, x"),
        ('e(uint64_t n, uint64_t m) "%" PRIu64 " of 0x%016" PRIx64 "!"', "uint64_t n; uint64_t m", "%lu of 0x%016lx!"),
        ('e(uint8_t n) "%" PRIu8 " %"', "uint8_t n", "%hhu %"),
        ('e(uint16_t n) "%04" PRIX16', "uint16_t n", "%04hX"),
        ('e(int32_t n) "%" PRIi32', "int32_t n", "%i"),
        ('e(uintptr_t n) "%" PRIxPTR', "uintptr_t n", "%lx"),
        ('e(intmax_t n) "%" PRIdMAX', "intmax_t n", "%jd"),
        ('e(hwaddr a) "addr " TARGET_FMT_plx " end"', "hwaddr a", "addr %016lx end"),
        (r'e(const char *f, int r) "field \"%s\" failed, %d"', "const char * f; int r", 'field "%s" failed, %d'),
        (r'e(int a) "a\tb\\c %d"', "int a", "a\tb\\c %d"),
        (r'e(int a) "\x41\102 %d"', "int a", "AB %d"),
        ('e(int a) "two  blanks  %d"', "int a", "two  blanks  %d"),
        ('e(int a) "%d%%"', "int a", "%d%%"),
        ('e(int a) "%d (" "joined)"', "int a", "%d (joined)"),
        ('disable e(int a) "%d"', "int a", "%d"),
        ('vcpu e(int a) "%d"', "void * __cpu; int a", "cpu=%p %d"),
        ('vcpu e(void) ""', "void * __cpu", "cpu=%p "),
        ('disable vcpu e(int a) "%d"', "void * __cpu; int a", "cpu=%p %d"),
    ],
)
def test_a_declaration_gives_its_arguments_and_its_format(line: str, arguments: str, printed: str) -> None:
    expected = tuple(
        Argument(name, ctype) for ctype, _, name in (part.rpartition(" ") for part in arguments.split("; ") if part)
    )
    assert parsed(line) == (EventSpec("e", expected, printed),)


def test_a_tcg_event_is_two_events_one_for_each_format() -> None:
    specs = parsed('vcpu tcg guest_mem_before(TCGv vaddr, uint16_t info) "info=%d", "vaddr=0x%016"PRIx64" info=%d"')
    assert [(spec.name, spec.format) for spec in specs] == [
        ("guest_mem_before_trans", "cpu=%p info=%d"),
        ("guest_mem_before_exec", "cpu=%p vaddr=0x%016lx info=%d"),
    ]


def test_ten_arguments_are_accepted_and_eleven_are_not_as_in_qemu() -> None:
    ten = ", ".join(f"int a{i}" for i in range(10))
    text = f'ten({ten}) "%d"\neleven({ten}, int b) "%d"\n'
    assert [spec.name for spec in parsed(text)] == ["ten"]
    assert [number for number, _ in skipped(text)] == [2]


def test_comments_and_empty_lines_are_neither_declared_nor_skipped() -> None:
    text = f"# See docs/devel/tracing.rst for syntax documentation.\n\n  # savevm.c\n{STATE}\n#{RATE}\n"
    assert parsed(text) == (STATE_SPEC,)
    assert skipped(text) == []


def test_declarations_keep_the_order_of_the_file() -> None:
    assert [spec.name for spec in parsed(f"{RATE}\n{STATE}\n")] == ["migration_rate_limit_pre", "migrate_set_state"]


# --- noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "     2\t" + STATE,
        "    42  " + STATE,
        "173:" + STATE,
        "migration/trace-events:173:" + STATE,
        "./migration/trace-events:" + STATE,
        "  │ " + STATE,
        "173 | " + STATE,
        "> " + STATE,
        "+" + STATE,
        "\t" + STATE + "   ",
        STATE + "\r",
        "\x1b[32m173\x1b[m\x1b[36m:\x1b[m" + STATE,
        "\x1b[1m" + STATE.replace("new_state", "\x1b[31mnew_state\x1b[0m") + "\x1b[K",
        "\x1b]0;root@host: ~\x07" + STATE,
        STATE.replace('"', "&quot;"),
        STATE.replace('"', "&#34;").replace(" ", "&nbsp;"),
        STATE.replace(" ", "\u00a0"),
    ],
    ids=[
        "cat-n", "nl", "grep-n", "grep-rn", "grep-r", "box", "table", "quoted", "diff", "indented", "crlf", "grep-colour",
        "colour", "title", "html", "html-blanks", "nbsp",
    ],
)  # fmt: skip
def test_a_declaration_is_found_through_what_a_terminal_or_a_page_put_around_it(line: str) -> None:
    text = f"{line}\n{RATE}\n"
    assert parsed(text) == (STATE_SPEC, RATE_SPEC)
    assert skipped(text) == []


def test_a_declaration_broken_between_words_is_put_together_again() -> None:
    text = f'migrate_set_state(const char\n    *new_state) "new\nstate %s"\n{RATE}\n'
    assert parsed(text) == (STATE_SPEC, RATE_SPEC)
    assert skipped(text) == []


def test_a_declaration_broken_at_the_edge_of_a_terminal_is_put_together_without_a_blank() -> None:
    long = 'savevm_section_end(const char *id, unsigned int section_id, int ret) "%s, section_id %u -> %d"'
    width = 40
    lines = [piece for line in (long, STATE, long) for piece in (line[i : i + width] for i in range(0, len(line), width))]
    specs = parsed("\n".join(lines) + "\n")
    assert [spec.name for spec in specs] == ["savevm_section_end", "migrate_set_state", "savevm_section_end"]
    assert [spec.format for spec in specs] == ["%s, section_id %u -> %d", "new state %s", "%s, section_id %u -> %d"]


def test_text_of_a_page_around_declarations_is_skipped_and_said_with_its_line() -> None:
    text = (
        "Trace events of the migration\n"
        "user@host:~/qemu$ cat migration/trace-events\n"
        f"{STATE}\n"
        "The event is written by migrate_set_state(), once for each state.\n"
        f"{RATE}\n"
        "Copyright\n"
    )
    assert parsed(text) == (STATE_SPEC, RATE_SPEC)
    assert skipped(text) == [
        (1, "Trace events of the migration"),
        (2, "user@host:~/qemu$ cat migration/trace-events"),
        (4, "The event is written by migrate_set_state(), once for each state."),
        (6, "Copyright"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        'e(int a) "%d',
        'e(int) "%d"',
        'e(int a "%d"',
        'e(int a) "%d" PRIfoo',
        "e(int a) %d",
        'tcg e(int a) "one format %d"',
        "e",
    ],
)  # fmt: skip
def test_a_line_that_qemu_would_refuse_is_skipped(line: str) -> None:
    assert skipped(f"{line}\n\n{STATE}\n") == [(1, line)]


def test_a_cut_declaration_does_not_swallow_the_next_one() -> None:
    text = f"cut(int a, int\n{STATE}\n"
    assert parsed(text) == (STATE_SPEC,)
    assert skipped(text) == [(1, "cut(int a, int")]


# --- nothing at all ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "line"), [("", 1), ("# only a comment\n", 1), ("\n\nhello world\n", 3)])
def test_a_file_without_any_declaration_is_refused_with_its_place(text: str, line: int) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse_trace_events(text, "my/trace-events")
    (problem,) = caught.value.problems
    assert (problem.location.path, problem.location.line, problem.location.column) == ("my/trace-events", line, 1)
    assert str(caught.value).startswith(f"my/trace-events:{line}:1: error: no trace event is declared in this file")


# --- the catalogue made of it -----------------------------------------------------------------------


def test_what_a_file_declares_takes_the_place_of_the_built_in_declarations() -> None:
    catalogue, declarations = catalogue_from('migrate_set_state(int state) "%d"\nmy_event(void) ""\n', "trace-events")
    assert catalogue.variants("migrate_set_state") == (declarations.specs[0],)
    assert catalogue.is_event("my_event")
    assert catalogue.variants("savevm_section_end"), "what the file does not declare is known as before"


def test_an_event_declared_twice_alike_counts_once() -> None:
    catalogue, declarations = catalogue_from(f"{STATE}\n{STATE}\n", "trace-events")
    assert len(declarations.specs) == 2
    assert catalogue.variants("migrate_set_state") == (STATE_SPEC,)


@pytest.mark.parametrize(("name", "closest"), [("migrate_set_stat", "migrate_set_state"), ("zzzzzz", None)])
def test_the_most_similar_declared_event_is_offered(name: str, closest: str | None) -> None:
    catalogue, _ = catalogue_from(STATE, "trace-events")
    assert catalogue.closest(name) == closest
