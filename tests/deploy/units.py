"""What the tests of the unit share: the files, read as systemd reads them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

SYSTEMD = Path(__file__).resolve().parents[2] / "deploy/systemd"
UNIT = SYSTEMD / "otelbridge.service"
PROGRAM = "/opt/otelbridge/bin/otelbridge"

# $OTELBRIDGE_OPTIONS
_VARIABLE = re.compile(r"\$(\w+)")


def settings(unit: str) -> dict[str, list[str]]:
    """The values of each setting in their order, whatever its section."""
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        if line and line[0] not in "#;[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def environment_of(lines: Iterable[str]) -> dict[str, str]:
    """The variables of an EnvironmentFile."""
    return dict(line.split("=", 1) for line in lines if line and line[0] not in "#;")


def words_of(command: str, env: Mapping[str, str]) -> list[str]:
    """A command line as systemd starts it: a variable that stands alone is as many words as it holds, even none.

    Source: systemd.service(5), "Command lines".
    """
    found: list[str] = []
    for word in shlex.split(command):
        variable = _VARIABLE.fullmatch(word)
        found += env.get(variable[1], "").split() if variable else [word]
    return found
