"""The tiny expressions of the mapping language: names, integers, strings, comparisons, `and or not in`, `+ - * // & | ~`.

They are parsed with `ast`, checked against a white list, and compiled to Python from what was checked.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple

from otelbridge.mapping.evaluators import argument, nothing, reading_no_more
from otelbridge.mapping.language import PSEUDO_ARGUMENTS
from otelbridge.mapping.rules import Evaluate
from otelbridge.records import Value

MAX_LENGTH = 1000
MAX_DEPTH = 50
_PSEUDO = {name: f"n[{place}]" for place, name in enumerate(PSEUDO_ARGUMENTS)}
_TEXTS = frozenset(PSEUDO_ARGUMENTS) - {"thread"}
_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.BitAnd: "&", ast.BitOr: "|"}
_UNARY = {ast.USub: "-", ast.Invert: "~", ast.Not: "not "}
_COMPARE = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
"""The comparison with its sides exchanged."""
_OPERATORS = _BINARY.keys() | _UNARY.keys()
_SIDES = ("begin", "end")
_NAME = re.compile(r"(?:(?:begin|end)\.)?[A-Za-z_]\w*")
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class ExpressionError(ValueError):
    """The text is no expression of the language. `column` counts from 0 in the text, `length` is what is meant.

    `others` are further problems of the same text.
    """

    def __init__(self, text: str, column: int = 0, length: int = 1, repair: str = "") -> None:
        super().__init__(text)
        self.column, self.length, self.repair = column, length, repair
        self.others: tuple[ExpressionError, ...] = ()

    def moved(self, columns: int) -> ExpressionError:
        """The same problem in a text that has so many columns before this one."""
        moved = ExpressionError(str(self), self.column + columns, self.length, self.repair)
        moved.others = tuple(other.moved(columns) for other in self.others)
        return moved


class Reference(NamedTuple):
    """A name in an expression. `side` is `begin`, `end` or empty for a bare name."""

    side: str
    name: str
    column: int
    length: int


@dataclass(frozen=True)
class Expression:
    """A checked expression. `column` is where it begins in the text that it was read from; its problems count from there."""

    text: str
    tree: ast.expr
    column: int = 0

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """The arguments it reads, pseudo-arguments left out."""
        return tuple(_references(self.tree))

    @property
    def plain_name(self) -> str | None:
        """The argument's name where it is nothing but a bare name of an argument."""
        tree = self.tree
        return tree.id if isinstance(tree, ast.Name) and tree.id not in _PSEUDO else None

    @property
    def is_constant(self) -> bool:
        """Whether it reads nothing at all."""
        return not self.references and not any(isinstance(n, ast.Name) for n in ast.walk(self.tree))


Where = Callable[[Reference], str | None]
"""Gives the Python for a reference: `b[2]`, `e[0]`, or None where the event never has such an argument."""


def parse_expression(text: str) -> Expression:
    """Check a text.

    Raises:
        ExpressionError: It is something else than an expression of the language.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH} characters, this one has {len(text)}", 0, len(text))
    if _NAME.fullmatch(text):
        return Expression(text, _named(text))
    stripped = text.strip()
    column = len(text) - len(text.lstrip()) if stripped else 0
    try:
        tree = _parsed(stripped)
        _check(tree, stripped)
    except ExpressionError as error:
        raise error.moved(column) from None
    return Expression(stripped, tree, column)


def _parsed(text: str) -> ast.expr:
    """Python's tree of a text. What Python only warns of, such as an unknown escape, is refused as well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError, Warning):
        raise ExpressionError(f"'{text}' is no expression", 0, max(1, len(text)), "for example ret < 0") from None


def _named(text: str) -> ast.expr:
    """The tree of a name, without the parser."""
    side, dot, name = text.rpartition(".")
    place = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": len(text)}
    if not dot:
        return ast.Name(name, ast.Load(), **place)
    return ast.Attribute(ast.Name(side, ast.Load(), **place), name, ast.Load(), **place)


def _refused(node: ast.expr, text: str, why: str) -> ExpressionError:
    column, end = 0, len(text)
    if node.lineno == node.end_lineno == 1:
        # Python counts columns in bytes.
        line = text.encode("utf-8", "replace")
        column, end = (len(line[:place].decode("utf-8", "replace")) for place in (node.col_offset, node.end_col_offset or 0))
    return ExpressionError(f"'{text[column:end]}' {why}", column, max(1, end - column))


def _check(node: ast.expr, text: str, depth: int = 0) -> None:
    """Refuse what the language does not have."""
    why = _refusal(node)
    if why:
        raise _refused(node, text, f"is not allowed: {why}")
    if depth >= MAX_DEPTH:
        raise ExpressionError(f"the expression is nested more than {MAX_DEPTH} levels deep", 0, len(text))
    if not isinstance(node, ast.Attribute):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                _check(child, text, depth + 1)


def _refusal(node: ast.expr) -> str:
    """Why a piece of an expression cannot be, empty if it can."""
    if isinstance(node, ast.Attribute):
        sided = isinstance(node.value, ast.Name) and node.value.id in _SIDES
        return "" if sided else "only begin. and end. may stand before a name"
    if isinstance(node, ast.Constant):
        fitting = isinstance(node.value, (int, str)) and not isinstance(node.value, bool)
        return "" if fitting else "values are integers and strings"
    if isinstance(node, (ast.BinOp, ast.UnaryOp)):
        return "" if type(node.op) in _OPERATORS else "the operators are + - * // & | ~ and comparisons"
    if isinstance(node, ast.Compare):
        fitting = all(type(op) in _COMPARE for op in node.ops)
        return "" if fitting else "comparisons are == != < <= > >= in, not in"
    if isinstance(node, (ast.BoolOp, ast.Name, ast.List, ast.Tuple)):
        return ""
    return "an expression has names, integers, strings, comparisons, and, or, not, in, + - * // & | ~"


def _references(node: ast.AST) -> Iterator[Reference]:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield Reference(node.value.id, node.attr, node.col_offset, (node.end_col_offset or 0) - node.col_offset)
    elif isinstance(node, ast.Name):
        if node.id not in _PSEUDO:
            yield Reference("", node.id, node.col_offset, len(node.id))
    else:
        for child in ast.iter_child_nodes(node):
            yield from _references(child)


# --- types ------------------------------------------------------------------------------------------

TypeOf = Callable[[Reference], str]
"""The type of a reference: `integer`, `text`, or `any` where versions of QEMU differ."""


def check_types(expression: Expression, type_of: TypeOf, unsigned: Callable[[Reference], bool]) -> str:
    """The type of an expression: integer, text, truth or any.

    Raises:
        ExpressionError: Types do not go together, or a comparison can never be true.
    """
    return _Types(expression.text, type_of, unsigned).of(expression.tree)


class _Types:
    def __init__(self, text: str, type_of: TypeOf, unsigned: Callable[[Reference], bool]) -> None:
        self._text, self._type_of, self._unsigned = text, type_of, unsigned

    def of(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return "text" if isinstance(node.value, str) else "integer"
        if isinstance(node, (ast.Name, ast.Attribute)):
            found = next(_references(node), None)
            if found is None:
                return "text" if isinstance(node, ast.Name) and node.id in _TEXTS else "integer"
            return self._type_of(found)
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node, node.left, node.right)
        if isinstance(node, ast.UnaryOp):
            return "truth" if isinstance(node.op, ast.Not) else self._arithmetic(node, node.operand)
        if isinstance(node, ast.BoolOp):
            return self._one_of(node)
        if isinstance(node, ast.Compare):
            self._compare(node)
            return "truth"
        raise _refused(node, self._text, "may stand only after 'in'")

    def _arithmetic(self, whole: ast.expr, *parts: ast.expr) -> str:
        for part in parts:
            if self.of(part) == "text":
                raise _refused(part, self._text, "is text, and only integers can be computed with")
        if isinstance(whole, ast.BinOp) and isinstance(whole.op, ast.FloorDiv) and _number(whole.right) == 0:
            error = _refused(whole, self._text, "divides by 0, so it never has a value")
            error.repair = "divide by another number, or by an argument"
            raise error
        return "integer" if whole is not None else "any"

    def _one_of(self, node: ast.BoolOp) -> str:
        """The type of `and` or `or`, which give one of their sides; truths count as integers beside these."""
        known: dict[str, ast.expr] = {}
        errors: list[ExpressionError] = []
        for value in node.values:
            try:
                known.setdefault(self.of(value), value)
            except ExpressionError as wrong:
                # The other sides are looked at too, so that all of them are told.
                errors += [wrong, *wrong.others]
        if errors:
            errors[0].others = tuple(errors[1:])
            raise errors[0]
        if {"integer", "text"} <= known.keys():
            later = max((known["integer"], known["text"]), key=node.values.index)
            what, other = ("an integer", "text") if later is known["integer"] else ("text", "an integer")
            word = "and" if isinstance(node.op, ast.And) else "or"
            error = _refused(later, self._text, f"is {what}, but '{word}' gives one of its sides, and another one is {other}")
            error.repair = "compare both, for example id != '' and section_id > 0"
            raise error
        return next((kind for kind in ("any", "text", "integer") if kind in known), "truth")

    def _compare(self, node: ast.Compare) -> None:
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, (ast.In, ast.NotIn)):
                if not isinstance(right, (ast.List, ast.Tuple)):
                    raise _refused(right, self._text, "is no list; 'in' takes one, for example [1, 2]")
                if not right.elts:
                    raise _refused(node, self._text, "decides nothing: the list is empty")
                for item in right.elts:
                    self._same(left, item)
            else:
                self._same(left, right)
                self._possible(node, left, op, right)
            left = right

    def _same(self, left: ast.expr, right: ast.expr) -> None:
        types = {self.of(left), self.of(right)} - {"any"}
        if types == {"integer", "text"}:
            words = {"integer": "an integer", "text": "text"}
            error = _refused(
                right, self._text, f"is {words[self.of(right)]}, but what it is compared with is {words[self.of(left)]}"
            )
            error.repair = "texts stand in quotes, integers do not"
            raise error

    def _possible(self, node: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr) -> None:
        """An unsigned argument is never below zero."""
        if _number(left) is not None:
            left, right, op = right, left, _TURNED.get(type(op), type(op))()
        found = next(_references(left), None) if isinstance(left, (ast.Name, ast.Attribute)) else None
        limit = _number(right)
        if found is None or limit is None or not self._unsigned(found):
            return
        truth = _truth_above_zero(op, limit)
        if truth is not None:
            raise _refused(node, self._text, f"is {'always' if truth else 'never'} true: '{found.name}' is unsigned")


def _truth_above_zero(op: ast.cmpop, limit: int) -> bool | None:
    """Whether a comparison with a limit is true for every number from 0 on; None where that depends on the number."""
    below = limit < 0
    if isinstance(op, (ast.Lt, ast.GtE)):
        return isinstance(op, ast.GtE) if limit <= 0 else None
    if isinstance(op, (ast.LtE, ast.Eq)):
        return False if below else None
    return True if below else None


def _number(node: ast.expr) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None


# --- code -------------------------------------------------------------------------------------------


def compile_expression(expression: Expression, where: Where) -> Evaluate:
    """A function `(begin, end, now)`. It gives None where an argument that is read is missing."""
    if expression.plain_name or isinstance(expression.tree, ast.Attribute):
        return _direct(expression, where)
    code, needed = _code(expression.tree, where), _needed(expression, where)
    if needed is None:
        return nothing
    body = f"({code})" if not needed else f"None if {' or '.join(f'{n} is None' for n in needed)} else ({code})"
    evaluate = _caught(_lambda(body))
    return evaluate if "n[" in body else reading_no_more(evaluate)


def _direct(expression: Expression, where: Where) -> Evaluate:
    place = where(expression.references[0])
    if place is None:
        return nothing
    if place.startswith("b["):
        return argument(int(place[2:-1]))
    return _lambda(f"None if e is None else {place}" if place.startswith("e[") else place)


@cache
def _lambda(body: str) -> Evaluate:
    # Most rules read the same few places, such as b[0].
    function: Evaluate = eval(f"lambda b, e, n: {body}", {"__builtins__": {}})  # noqa: S307  # built from a checked tree alone
    return function


def _caught(function: Evaluate) -> Evaluate:
    def evaluate(
        begin: tuple[Value | None, ...], end: tuple[Value | None, ...] | None, now: tuple[object, ...]
    ) -> Value | None:
        try:
            return function(begin, end, now)  # type: ignore[arg-type]
        except (TypeError, ZeroDivisionError, OverflowError):
            # An argument that is text in one version of QEMU and a number in another.
            return None

    return evaluate


def _needed(expression: Expression, where: Where) -> list[str] | None:
    """What must not be None; None itself where an argument can never be there."""
    needed: list[str] = []
    for reference in expression.references:
        place = where(reference)
        if place is None:
            return None
        needed += ["e", place] if place.startswith("e[") else [place]
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.Name) and node.id in _PSEUDO:
            place = _own(node, where)
            if place is not None or node.id != "state":
                needed.append(place or _PSEUDO[node.id])
    return list(dict.fromkeys(needed))


def _own(node: ast.Name, where: Where) -> str | None:
    """The place of an argument of the event that has the name of a pseudo-argument."""
    return where(Reference("", node.id, node.col_offset, len(node.id)))


def _code(node: ast.expr, where: Where) -> str:
    """Python for a checked tree."""
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if isinstance(node, (ast.Name, ast.Attribute)):
        return _code_of_name(node, where)
    if isinstance(node, ast.BinOp):
        return f"({_code(node.left, where)} {_BINARY[type(node.op)]} {_code(node.right, where)})"
    if isinstance(node, ast.UnaryOp):
        return f"({_UNARY[type(node.op)]}{_code(node.operand, where)})"
    if isinstance(node, ast.BoolOp):
        word = " and " if isinstance(node.op, ast.And) else " or "
        return "(" + word.join(_code(v, where) for v in node.values) + ")"
    if isinstance(node, ast.Compare):
        parts = [_code(node.left, where)]
        for op, right in zip(node.ops, node.comparators, strict=True):
            parts += [_COMPARE[type(op)], _code(right, where)]
        return f"({' '.join(parts)})"
    if isinstance(node, (ast.List, ast.Tuple)):
        return "(" + "".join(f"{_code(item, where)}, " for item in node.elts) + ")"
    raise AssertionError(ast.dump(node))


def _code_of_name(node: ast.Name | ast.Attribute, where: Where) -> str:
    if isinstance(node, ast.Name) and node.id in _PSEUDO:
        return _own(node, where) or _PSEUDO[node.id]
    return where(next(_references(node))) or "None"


# --- templates --------------------------------------------------------------------------------------


class Template(NamedTuple):
    """A text with `{expression}` in it: literal pieces and expressions in turn."""

    pieces: tuple[str | Expression, ...]

    @property
    def expressions(self) -> Sequence[Expression]:
        """What it puts in."""
        return [piece for piece in self.pieces if isinstance(piece, Expression)]


def parse_template(text: str) -> Template:
    """Split a text.

    Raises:
        ExpressionError: A brace is alone, or what stands in braces is no expression.
    """
    pieces: list[str | Expression] = []
    place = 0
    for found in _FIELD.finditer(text):
        pieces.append(text[place : found.start()])
        place = found.end()
        if found[0] in ("{{", "}}"):
            pieces.append(found[0][0])
        elif found[1] is None:
            raise ExpressionError(f"a single '{found[0]}' stands in '{text}'; write it twice to mean itself", found.start(), 1)
        else:
            try:
                expression = parse_expression(found[1])
            except ExpressionError as error:
                raise error.moved(found.start() + 1) from None
            pieces.append(replace(expression, column=expression.column + found.start() + 1))
    pieces.append(text[place:])
    return Template(tuple(piece for piece in pieces if piece != ""))


def compile_template(template: Template, where: Where) -> Evaluate:
    """A function that gives the text; what is missing leaves nothing in its place."""
    pieces: list[str | Evaluate] = [
        piece if isinstance(piece, str) else compile_expression(piece, where) for piece in template.pieces
    ]
    if all(isinstance(piece, str) for piece in pieces):
        fixed = "".join(piece for piece in pieces if isinstance(piece, str))
        return lambda _begin, _end, _now: fixed

    def evaluate(begin: tuple[Value | None, ...], end: tuple[Value | None, ...] | None, now: object) -> Value | None:
        values = [piece if isinstance(piece, str) else piece(begin, end, now) for piece in pieces]  # type: ignore[arg-type]
        return "".join("" if value is None else str(value) for value in values)

    return evaluate
