"""`${env:NAME}` in the configuration: references to environment variables, written as in the OpenTelemetry Collector.

Source: opentelemetry-collector, docs/rfcs/env-vars.md and confmap/provider/envprovider: names are [a-zA-Z_][a-zA-Z0-9_]*, a
default counts where the variable is not set (an empty one is set), `$$` is a `$`. Other than there, an unset variable without
a default is an error, and what a variable holds is taken as it is: a `$` in it begins no reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# $$  ${env:TOKEN}  ${env:TOKEN:-  (what follows is found by its bracket)  ${TOKEN}  ${file:x}
_REFERENCE = re.compile(r"\$\$|\$\{")
_ANY_REPAIR = "write ${env:NAME}, or $$ for a $ that is one"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unresolved(NamedTuple):
    """A reference that cannot be resolved: its place in the text, and what to say of it.

    `quoted` is what the message is about where it may be no reference at all, but a piece of a secret; else it is empty.
    """

    start: int
    end: int
    quoted: str
    text: str
    repair: str

    def said(self, *, secretly: bool) -> tuple[str, str]:
        """The message and its repair; `secretly` without what may be a piece of a secret."""
        if not self.quoted:
            return self.text, self.repair
        if secretly:
            return f"'${{…}}' {self.text}", _ANY_REPAIR
        return f"'{self.quoted}' {self.text}", self.repair


def expanded(text: str, env: Mapping[str, str]) -> tuple[str, list[Unresolved]]:
    """The text with its references resolved, and those that could not be.

    A default may hold references itself; they count only where the default does.
    """
    parts, wrong = [], list[Unresolved]()
    for part in _parts(text, 0, env):
        if isinstance(part, str):
            parts.append(part)
        else:
            wrong.append(part)
    return "".join(parts), wrong


def _parts(text: str, offset: int, env: Mapping[str, str]) -> Iterator[str | Unresolved]:
    """Pieces of the result. `offset` is the place of the text in the whole of it."""
    done = 0
    while found := _REFERENCE.search(text, done):
        start = found.start()
        yield text[done:start]
        if found[0] == "$$":
            yield "$"
            done = found.end()
            continue
        end = _closing(text, found.end())
        if end is None:
            yield Unresolved(offset + start, offset + len(text), "${", "is never closed", _ANY_REPAIR)
            return
        yield from _resolved(text[found.end() : end], offset + start, env)
        done = end + 1
    yield text[done:]


def _closing(text: str, start: int) -> int | None:
    """The place of the bracket that ends a reference."""
    depth = 1
    for place in range(start, len(text)):
        if text.startswith("${", place):
            depth += 1
        elif text[place] == "}":
            depth -= 1
        if not depth:
            return place
    return None


def _resolved(inside: str, start: int, env: Mapping[str, str]) -> Iterator[str | Unresolved]:
    """What stands for `env:NAME` or `env:NAME:-default`."""
    end = start + len("${") + len(inside) + len("}")
    scheme, colon, rest = inside.partition(":")
    if not colon or scheme != "env":
        name = inside.partition(":-")[0]
        repair = f"write ${{env:{name}}}" if _NAME.fullmatch(name) else _ANY_REPAIR
        yield Unresolved(start, end, f"${{{name}}}", "refers to nothing", repair)
        return
    name, has_default, default = rest.partition(":-")
    if not _NAME.fullmatch(name):
        yield Unresolved(
            start, end, f"${{env:{name}}}", "names no variable", "names are letters, digits and '_', and begin with no digit"
        )
    elif name in env:
        yield env[name]
    elif has_default:
        yield from _parts(default, end - len("}") - len(default), env)
    else:
        yield Unresolved(
            start, end, "", f"the environment variable '{name}' is not set",
            f"set it, or write ${{env:{name}:-default}}; an empty default is allowed",
        )  # fmt: skip
