"""The scripts: a probe each, which prints its event, or adds it up and prints the sum about once a second.

Source: bpftrace's reference (https://github.com/bpftrace/bpftrace/blob/master/docs/reference_guide.md), and SystemTap's
language reference (https://sourceware.org/systemtap/langref/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from otelbridge.catalogue.printf import integer_type, is_text
from otelbridge.probes.chosen import Probe
from otelbridge.records import Argument, EventSpec

_CONVERSION = re.compile(
    r"%(?:%|(?P<flags>[-+ #0]*)(?P<width>\d*)(?P<precision>\.\d+)?(?:hh|h|ll|l|j|z|t|L|q)?(?P<letter>[a-zA-Z]))"
)
_INT = 32
_TEXT_BYTES = 512
"""As QEMU's own log.stp cuts strings."""


def _converted(spec: EventSpec, conversion: Callable[[re.Match[str]], str]) -> str:
    """The format for a script's printf, between its quotes."""
    escaped = spec.format.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t").replace("\n", "\\n")
    return _CONVERSION.sub(conversion, escaped)


def _decimal(letter: str) -> str:
    """The letter of a conversion that both programs know."""
    return "d" if letter == "i" else letter


def _letters(spec: EventSpec) -> Iterator[tuple[int, Argument, str]]:
    """Place, argument and letter of each conversion."""
    letters = (found["letter"] for found in _CONVERSION.finditer(spec.format) if found["letter"])
    for place, (argument, letter) in enumerate(zip(spec.arguments, letters, strict=False)):
        yield place, argument, letter


# --- bpftrace -----------------------------------------------------------------------------------------

_BPFTRACE_HEAD = """\
#!/usr/bin/env bpftrace
// Prints trace events of QEMU for: otelbridge convert --format stap
// bpftrace 0.17 or newer, with BPFTRACE_MAX_PROBES=1024 in its environment, and BPFTRACE_STRLEN=200 for whole strings (64
// bytes where it is not set); with -p PID it switches on what a semaphore guards. Times are microseconds with three zeros.
// A line break in a string breaks the line, and what follows could pass for an event.
// What is added up is printed by the thread itself at its next such event after a second; bpftrace prints the rest at its end.
"""
_BPFTRACE_TIME = 'strftime("%s%f", nsecs)'


def _bpftrace_conversion(found: re.Match[str]) -> str:
    letter = found["letter"]
    if letter in (None, "s"):
        return "%s"  # bpftrace 0.17 prints both signs of %%
    return "0x%llx" if letter == "p" else f"%{found['flags']}{found['width']}ll{_decimal(letter)}"


def bpftrace_script(binary: str, probes: Sequence[Probe], pid: int | None) -> Iterator[str]:
    """The lines of a bpftrace script (0.17 or newer) for the probes of that program."""
    yield from _BPFTRACE_HEAD.splitlines()
    limit = f"\n/pid == {pid}/" if pid is not None else ""
    for spec, summed in probes:
        body = _bpftrace_line(spec) if summed is None else _bpftrace_sum(spec, summed)
        yield f'usdt:"{binary}":qemu:{spec.name}{limit}\n{{\n{body}\n}}'


def _bpftrace_line(spec: EventSpec) -> str:
    arguments = _letters(spec)
    signs = (found["letter"] is None for found in _CONVERSION.finditer(spec.format))
    values = "".join(f", {_bpftrace_value(*next(arguments))}" if not sign else ', "%"' for sign in signs)
    text = f" {_converted(spec, _bpftrace_conversion)}" if spec.format else ""
    return f'  printf("%d/%d@%s000 {spec.name}{text}\\n", pid, tid, {_BPFTRACE_TIME}{values});'


def _bpftrace_value(place: int, argument: Argument, letter: str) -> str:
    if letter == "s":
        return f'arg{place} != 0 ? str(arg{place}) : "<null>"'
    size, signed = _size(argument)
    declared = f"({'' if signed else 'u'}int{size})arg{place}"
    if size < _INT:
        return f"(uint{_INT}){declared}" if signed and letter in "uxXo" else declared
    return f"({'' if letter in 'di' else 'u'}int{size})arg{place}"


def _bpftrace_sum(spec: EventSpec, summed: Sequence[str]) -> str:
    """Adds up in a map of the event's own: process, thread -> number, since when, sums. Its name tells what they are of."""
    places = {argument.name: place for place, argument in enumerate(spec.arguments)}
    here = f"@{'__'.join((spec.name, *summed))}[pid, tid]"
    sums = []
    for i, name in enumerate(summed):
        size, signed = _size(spec.arguments[places[name]])
        # bpftrace 0.17 makes (int64)(uint32)arg0 of 0xfffffffe to -2.
        value = f"(int{size})arg{places[name]}" if signed else f"(arg{places[name]} & {(1 << size) - 1:#x})"
        sums.append(f"$sum.{2 + i} + (int64){value}")
    words = "".join(f" {name}=%lld" for name in summed)
    values = "".join(f", $sum.{2 + i}" for i in range(len(summed)))
    return "\n".join(
        (
            f"  if ({here}.0 == 0) {{ {here} = ({', '.join(('(int64)0', '(int64)nsecs', *['(int64)0'] * len(summed)))}); }}",
            f"  $sum = {here};",
            f"  {here} = ({', '.join(('$sum.0 + 1', '$sum.1', *sums))});",
            "  if ((int64)nsecs - $sum.1 >= 1000000000) {",
            f"    $sum = {here};",
            f'    printf("%d@%s000 otelbridge_sum {spec.name} count=%lld{words}\\n", pid, {_BPFTRACE_TIME}, $sum.0{values});',
            f"    delete({here});",
            "  }",
        )
    )


# --- SystemTap ----------------------------------------------------------------------------------------

_STAP_HEAD = f"""\
#!/usr/bin/env stap
// Prints trace events of QEMU for: otelbridge convert --format stap
// Strings are cut at {_TEXT_BYTES} bytes, and a line break in one is printed as \\n.
function otelbridge_text:string(address:long)
{{
  if (!address) return "<null>"
  return str_replace(user_string_n2(address, {_TEXT_BYTES}, "<unknown>"), "\\n", "\\\\n")
}}
"""


def _stap_conversion(found: re.Match[str]) -> str:
    letter = found["letter"]
    if letter in (None, "s"):
        return "%%" if letter is None else "%s"
    return f"%{found['flags']}{found['width']}{_decimal(letter)}"


def stap_script(binary: str, probes: Sequence[Probe], pid: int | None) -> Iterator[str]:
    """The lines of a SystemTap script for the probes of that program."""
    yield from _STAP_HEAD.splitlines()
    limit = f"  if (pid() != {pid}) next\n" if pid is not None else ""
    for spec, summed in probes:
        body = _stap_line(spec) if summed is None else _stap_adding(spec, summed)
        yield f'probe process("{binary}").provider("qemu").mark("{spec.name}")\n{{\n{limit}{body}\n}}'
        if summed is not None:
            yield _stap_sum(spec, summed)


def _stap_line(spec: EventSpec) -> str:
    values = "".join(f", {_stap_value(*one)}" for one in _letters(spec))
    text = f" {_converted(spec, _stap_conversion)}" if spec.format else ""
    return f'  printf("%d/%d@%d {spec.name}{text}\\n", pid(), tid(), gettimeofday_ns(){values})'


def _stap_value(place: int, argument: Argument, letter: str) -> str:
    value = f"$arg{place + 1}"
    if letter == "s":
        return f"otelbridge_text({value})"
    size, signed = _size(argument)
    if size < _INT and not (signed and letter in "uxXo"):
        return _stap_cast(value, size, signed=signed)
    if size < _INT:
        return _stap_cast(_stap_cast(value, size, signed=True), _INT, signed=False)
    return _stap_cast(value, size, signed=letter in "di")


def _stap_cast(value: str, size: int, *, signed: bool) -> str:
    if size == 64:  # noqa: PLR2004  # every number of SystemTap's has 64 bits
        return value
    left = 64 - size
    return f"(({value} << {left}) >> {left})" if signed else f"({value} & {(1 << size) - 1:#x})"


def _stap_maps(spec: EventSpec, summed: Sequence[str]) -> list[str]:
    return [f"otelbridge_{spec.name}_count", *(f"otelbridge_{spec.name}_sum_{name}" for name in summed)]


def _stap_adding(spec: EventSpec, summed: Sequence[str]) -> str:
    places = {argument.name: place for place, argument in enumerate(spec.arguments)}
    values = ["1"]
    for name in summed:
        size, signed = _size(spec.arguments[places[name]])
        values.append(_stap_cast(f"$arg{places[name] + 1}", size, signed=signed))
    maps = _stap_maps(spec, summed)
    return "\n".join(f"  {of}[pid()] <<< {value}" for of, value in zip(maps, values, strict=True))


def _stap_sum(spec: EventSpec, summed: Sequence[str]) -> str:
    """A timer of its own for each event: SystemTap ends a script that does too much in one handler."""
    count, *sums = maps = _stap_maps(spec, summed)
    text = f"%d@%d otelbridge_sum {spec.name} count=%d{''.join(f' {name}=%d' for name in summed)}\\n"
    values = "".join(f", @sum({of}[process])" for of in sums)
    return "\n".join(
        (
            f"global {', '.join(maps)}",
            "probe timer.s(1), end\n{",
            f"  foreach (process in {count})",
            f'    printf("{text}", process, gettimeofday_ns(), @count({count}[process]){values})',
            *(f"  delete {of}" for of in maps),
            "}",
        )
    )


def _size(argument: Argument) -> tuple[int, bool]:
    """The bits of an argument, and whether it is signed."""
    size, signed = integer_type(argument.ctype)
    return max(8, size), signed and not is_text(argument.ctype)


class Script(NamedTuple):
    """How a program's script is made, and how many arguments of a probe that program can read."""

    lines: Callable[[str, Sequence[Probe], int | None], Iterator[str]]
    arguments: int


SCRIPTS = {"bpftrace": Script(bpftrace_script, 6), "stap": Script(stap_script, 12)}
"""By the program's name. bpftrace 0.17 has arg0 to arg5 on x86_64; `sys/sdt.h` declares up to 12 arguments."""
