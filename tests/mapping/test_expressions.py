"""Expressions mean what Python means by them, miss what is missing, and are nothing else than expressions."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbridge.mapping.expressions import (
    Expression,
    ExpressionError,
    Reference,
    check_types,
    compile_expression,
    compile_template,
    parse_expression,
    parse_template,
)
from otelbridge.mapping.rules import Now
from otelbridge.records import Value

NOWHERE = Now(None, None, None, None)
PLACES = ("a", "b", "c")


def where(reference: Reference) -> str | None:
    """`a`, `b`, `c` are arguments of the begin event, and of the end event after `end.`; all others are never there."""
    if reference.name not in PLACES:
        return None
    return f"{'e' if reference.side == 'end' else 'b'}[{PLACES.index(reference.name)}]"


def value_of(text: str, *begin: Value | None, end: tuple[Value | None, ...] | None = None, now: Now = NOWHERE) -> Value | None:
    return compile_expression(parse_expression(text), where)(begin, end, now)


def text_of(text: str, *begin: Value | None) -> Value | None:
    return compile_template(parse_template(text), where)(begin, None, NOWHERE)


@pytest.mark.parametrize(
    ("text", "arguments", "value"),
    [
        ("7", (), 7),
        ("0x1f", (), 31),
        ("'ram'", (), "ram"),
        ("a", (5,), 5),
        ("a", ("ram",), "ram"),
        ("-a", (5,), -5),
        ("a + b * c", (1, 2, 3), 7),
        ("(a + b) * c", (1, 2, 3), 9),
        ("a - b - c", (9, 2, 3), 4),
        ("a // b", (7, 2), 3),
        ("-a // b", (7, 2), -4),
        ("a & ~0xfff", (0x7F12_3456_7ABC,), 0x7F12_3456_7000),
        ("a & ~0xfff", (0xFFFF_FFFF_FFFF_F123,), 0xFFFF_FFFF_FFFF_F000),
        ("a | b & c", (8, 6, 3), 10),
        ("a & b == c", (6, 2, 2), True),
        ("a < b < c", (1, 2, 3), True),
        ("a < b < c", (1, 3, 2), False),
        ("not a == 1", (1,), False),
        ("a == 1 or b == 1 and c == 1", (1, 0, 0), True),
        ("(a == 1 or b == 1) and c == 1", (1, 0, 0), False),
        ("a in [1, 2]", (2,), True),
        ("a in (1, 2)", (3,), False),
        ("a not in ['x', 'y']", ("z",), True),
        ("a in [b, c]", (1, 2, 1), True),
        (" a ", (5,), 5),
    ],
)
def test_an_expression_means_what_python_means(text: str, arguments: tuple[Value, ...], value: Value) -> None:
    assert value_of(text, *arguments) == value


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("a", (None,)),
        ("a + b", (1, None)),
        ("a < 0", (None,)),
        ("not a", (None,)),
        ("a == 1 or b == 1", (1, None)),
        ("a in [b, 1]", (1, None)),
        ("other", (1,)),
        ("a == other", (1,)),
        ("begin.other", (1,)),
        ("end.other == 1", (1,)),
    ],
)
def test_a_missing_argument_gives_nothing(text: str, arguments: tuple[Value | None, ...]) -> None:
    assert value_of(text, *arguments) is None


@pytest.mark.parametrize("text", ["end.a", "end.a < 0", "a == end.a", "not end.a"])
def test_a_span_that_did_not_end_has_nothing_of_its_end(text: str) -> None:
    assert value_of(text, 1, end=None) is None
    assert value_of(text, 1, end=(None,)) is None
    assert value_of(text, 1, end=(1,)) is not None


def test_names_after_begin_and_end_are_read_from_the_two_events() -> None:
    assert value_of("end.a - begin.a", 3, end=(10,)) == 7


def test_the_moment_can_be_asked() -> None:
    now = Now(17, "active", "source", "7.2.0", "savevm_section_start", "savevm_section_end")
    for name, value in now._asdict().items():
        assert value_of(name, now=now) == value
    assert value_of("thread == 17 and role == 'source'", now=now) is True
    assert value_of("thread + 1", now=NOWHERE) is None


def test_no_open_machine_is_in_no_state() -> None:
    assert value_of("state not in ['postcopy-active']", now=NOWHERE) is True
    assert value_of("state == 'active'", now=NOWHERE) is False


@pytest.mark.parametrize(("text", "arguments"), [("a // b", (1, 0)), ("a + b", (1, "x")), ("a < b", ("x", 1))])
def test_what_cannot_be_computed_gives_nothing(text: str, arguments: tuple[Value, ...]) -> None:
    assert value_of(text, *arguments) is None


# --- templates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "arguments", "text"),
    [
        ("", (), ""),
        ("plain", (), "plain"),
        ("returned {a}", (-5,), "returned -5"),
        ("{a}{b}", ("x", "y"), "xy"),
        ("{ a + 1 }", (4,), "5"),
        ("{{a}}", (1,), "{a}"),
        ("{{{a}}}", (1,), "{1}"),
        ("{a} ({b})", (None, 5), " (5)"),
        ("{other}", (1,), ""),
        ("{a}", ("{b}",), "{b}"),
    ],
)
def test_a_template_puts_values_in(template: str, arguments: tuple[Value | None, ...], text: str) -> None:
    assert text_of(template, *arguments) == text


@pytest.mark.parametrize(
    ("template", "column"), [("{", 0), ("a }", 2), ("{a} {", 4), ("{a {b}", 0), ("x {a +}", 3), ("x { len(a)}", 4)]
)
def test_a_wrong_template_says_where(template: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_template(template)
    assert caught.value.column == column


@given(st.text(max_size=60))
def test_doubled_braces_are_braces(text: str) -> None:
    assert text_of(text.replace("{", "{{").replace("}", "}}")) == text


# --- what is no expression --------------------------------------------------------------------------

_WORDS = """a b end.a begin. end thread True None 0 7 0.5 1e9 'x' "x" é '\\d' ( ) [ ] { } , : . == != < <= in not and or is
    + - * ** // / % & | ^ ~ << >> @ lambda if else for x f'{a}' := ; # \\ ! ?"""
_PIECES = st.sampled_from(_WORDS.split())


@given(
    st.one_of(st.text(max_size=80), st.lists(_PIECES, max_size=14).map(" ".join), st.lists(_PIECES, max_size=14).map("".join))
)
def test_any_text_is_an_expression_or_is_refused_with_a_place_in_it(text: str) -> None:
    found = parsed(text)
    if isinstance(found, Expression):
        compile_expression(found, where)((1, 2, 3), (4, 5, 6), NOWHERE)
    else:
        assert 0 <= found.column < found.column + found.length <= max(1, len(text))


def parsed(text: str) -> Expression | ExpressionError:
    try:
        return parse_expression(text)
    except ExpressionError as error:
        return error


@pytest.mark.parametrize(
    "text", ["~" * 900 + "a", "(" * 400 + "a" + ")" * 400, "not " * 240 + "a", "a+" * 499 + "a", "a" * 1001]
)
def test_what_nests_too_deep_or_is_too_long_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_expression(text)


def test_the_deepest_expression_that_is_allowed_can_be_compiled() -> None:
    assert value_of("~" * 49 + "a", 1) == ~1
    with pytest.raises(ExpressionError):
        parse_expression("~" * 50 + "a")


def test_columns_count_characters_where_python_counts_bytes() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression("'äöü' == a.b")
    assert (caught.value.column, caught.value.length) == (9, 3)
    assert str(caught.value).startswith("'a.b' is not allowed")


# --- types ------------------------------------------------------------------------------------------


def type_of(text: str) -> str:
    """The type where `name` is text, `number` an integer, `size` an unsigned one, and everything else this and that."""
    types = {"name": "text", "number": "integer", "size": "integer"}
    return check_types(parse_expression(text), lambda r: types.get(r.name, "any"), lambda r: r.name == "size")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("name", "text"),
        ("role", "text"),
        ("thread", "integer"),
        ("number", "integer"),
        ("other", "any"),
        ("size & ~0xfff", "integer"),
        ("name == 'ram'", "truth"),
        ("other == 'ram' or other == 1", "truth"),
        ("name in ['a', 'b']", "truth"),
        ("size > 0 and number < 0", "truth"),
        ("size <= 0", "truth"),
        ("size == 0", "truth"),
        ("1 <= size", "truth"),
    ],
)
def test_types_follow_from_the_arguments(text: str, kind: str) -> None:
    assert type_of(text) == kind


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name < 0", "'0' is an integer, but what it is compared with is text"),
        ("number == 'ram'", "''ram'' is text, but what it is compared with is an integer"),
        ("number in [1, 'ram']", "''ram'' is text, but what it is compared with is an integer"),
        ("role == 1", "'1' is an integer, but what it is compared with is text"),
        ("name + 1", "'name' is text, and only integers can be computed with"),
        ("-name", "'name' is text, and only integers can be computed with"),
        ("number in name", "'name' is no list; 'in' takes one, for example [1, 2]"),
        ("number in []", "'number in []' decides nothing: the list is empty"),
        ("[1, 2]", "'[1, 2]' may stand only after 'in'"),
        ("number in [1] in [2]", "'[1]' may stand only after 'in'"),
        ("size < 0", "'size < 0' is never true: 'size' is unsigned"),
        ("size <= -1", "'size <= -1' is never true: 'size' is unsigned"),
        ("size == -1", "'size == -1' is never true: 'size' is unsigned"),
        ("0 > size", "'0 > size' is never true: 'size' is unsigned"),
        ("size >= 0", "'size >= 0' is always true: 'size' is unsigned"),
        ("size != -1", "'size != -1' is always true: 'size' is unsigned"),
        ("-1 < size", "'-1 < size' is always true: 'size' is unsigned"),
    ],
)
def test_what_cannot_go_together_is_refused(text: str, what: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        type_of(text)
    assert str(caught.value) == what


# --- the same as Python -----------------------------------------------------------------------------


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def joined(*operators: str) -> st.SearchStrategy[str]:
        return st.builds("{} {} {}".format, inner, st.sampled_from(operators), inner)

    return st.one_of(
        joined("+", "-", "*", "//", "&", "|"),
        joined("==", "!=", "<", "<=", ">", ">="),
        joined("and", "or"),
        st.builds("({})".format, inner),
        st.builds("{}({})".format, st.sampled_from(["-", "~", "not "]), inner),
        st.builds("{} {} [{}, {}]".format, inner, st.sampled_from(["in", "not in"]), inner, inner),
    )


TEXTS = st.recursive(st.sampled_from(["a", "b", "c", "0", "1", "7", "0xfff"]), _grown, max_leaves=12).filter(
    lambda text: len(text) < 1000
)
NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1)


@given(TEXTS, NUMBERS, NUMBERS, NUMBERS)
def test_the_value_is_the_one_that_python_gives(text: str, a: int, b: int, c: int) -> None:
    try:
        expression: Expression = parse_expression(text)
    except ExpressionError:
        # `not` after an operator is no Python either.
        with pytest.raises(SyntaxError):
            ast.parse(text, mode="eval")
        return
    try:
        expected = eval(text, {"__builtins__": {}}, {"a": a, "b": b, "c": c})  # noqa: S307  # the other side of the comparison
    except (ZeroDivisionError, TypeError):
        expected = None
    assert compile_expression(expression, where)((a, b, c), None, NOWHERE) == expected


def test_an_argument_goes_before_what_is_known_beside_the_arguments() -> None:
    """`migrate_global_state_pre_save` has an argument `state`, which is the guest's and not the migration's."""
    now = Now(7, "active", "source", None)

    def with_state(reference: Reference) -> str | None:
        return "b[0]" if reference.name == "state" else where(reference)

    evaluate = compile_expression(parse_expression("state"), with_state)
    assert evaluate(("running",), None, now) == "running"
    assert evaluate((None,), None, now) is None
    assert compile_expression(parse_expression("state == 'running' and role == 'source'"), with_state)(("running",), None, now)
    assert value_of("state", now=now) == "active"
