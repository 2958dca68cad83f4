"""The scripts for USDT probes, on a program that has the probes which the catalogue declares, and fires each once."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbridge.catalogue import TextDecoder, builtin
from otelbridge.catalogue.declared import events_of, of_version
from otelbridge.catalogue.printf import integer_type, is_text
from otelbridge.mapping import load_with_shipped
from otelbridge.probes import NotesError, sdt_probes
from otelbridge.records import EventSpec
from tests.convert.command import Result, call

VERSION = "10.2.0"
OPTIONS = [(), ("--cost", "low"), ("--pid", "4711", "--qemu-version", VERSION)]
TOO_MANY = "qemu_rdma_dump_id"
"""An event with more arguments than bpftrace 0.17 reads."""
STAMP = re.compile(r"(?:(\d+)/(\d+)@\d{19} |@)(\w+)(.*)")

Need = Callable[[str, str], None]


def specs() -> Iterator[EventSpec]:
    for event in events_of(builtin(), VERSION):
        spec = of_version(builtin(), event, VERSION)
        assert spec is not None
        yield spec


def value_of(ctype: str, place: int) -> int | str:
    """What the program fires: values that come out otherwise when they are read with another size or sign."""
    size, signed = integer_type(ctype)
    if is_text(ctype):
        return f"t{place}"
    if size == 1:
        return 1
    return -(100 + place) if signed else (1 << size) - 1 - place


def source() -> str:
    """A C program that fires every event of a version once. Its texts are written first: a probe reads no page from disk."""
    calls = []
    for spec in specs():
        values = [value_of(a.ctype, i) for i, a in enumerate(spec.arguments)]
        written = [f"texts[{i}]" if isinstance(v, str) else f"{v}{'' if v < 0 else 'u'}ll" for i, v in enumerate(values)]
        variables = " ".join(
            f"{a.ctype} volatile a{i} = ({a.ctype}){value};"
            for i, (a, value) in enumerate(zip(spec.arguments, written, strict=True))
        )
        names = "".join(f", a{i}" for i in range(len(values)))
        number = str(len(values)) if values else ""
        calls.append(f"  {{ {variables} DTRACE_PROBE{number}(qemu, {spec.name}{names}); }}")
    heads = "#include <stdint.h>\n#include <stdbool.h>\n#include <sys/types.h>\n#include <sys/sdt.h>\n"
    texts = "static char texts[16][8];\n"
    fill = "  for (int i = 0; i < 16; i++) { texts[i][0] = 't'; texts[i][1] = '0' + i; }\n"
    return f"{heads}{texts}int main(void) {{\n{fill}" + "\n".join(calls) + "\n  return 0; }\n"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Path:
    """The compiled program."""
    need("gcc", "it compiles a program with USDT probes")
    folder = tmp_path_factory.mktemp("usdt")
    (folder / "qemu.c").write_text(source())
    made = subprocess.run(
        ["gcc", "-O1", "-w", "-o", folder / "qemu", folder / "qemu.c"], check=False, capture_output=True, text=True
    )
    assert made.returncode == 0, f"sys/sdt.h comes with Debian's systemtap-sdt-dev\n{made.stderr}"
    return folder / "qemu"


def script(program: Path | str, tool: str, *options: str) -> Result:
    """What `otelbridge probes` prints."""
    return call("probes", tool, "--binary", program, *options)


# --- the notes --------------------------------------------------------------------------------------------


def test_the_probes_that_are_found_are_those_readelf_shows(program: Path, need: Need) -> None:
    need("readelf", "it is the truth on ELF notes")
    shown = subprocess.run(["readelf", "-n", program], check=True, capture_output=True, text=True).stdout
    notes = re.findall(r"Provider: (\S+)\n\s+Name: (\S+)\n.*\n\s+Arguments:(.*)", shown)
    truth = {
        (name, tuple(abs(int(size)) for size in re.findall(r"(-?\d+)@", text))) for who, name, text in notes if who == "qemu"
    }
    found = sdt_probes(program.read_bytes(), "qemu")
    assert {(name, sizes) for name, places in found.items() for sizes in places} == truth
    assert found.keys() == {spec.name for spec in specs()}


@pytest.mark.parametrize("length", [0, 3, 5, 40, 63, 70])
def test_a_cut_program_is_an_error_of_its_own(program: Path, length: int) -> None:
    with pytest.raises(NotesError):
        sdt_probes(program.read_bytes()[:length], "qemu")


@pytest.fixture(scope="session")
def damaged(program: Path) -> Callable[[list[tuple[bool, int, int]]], bytes]:
    """Gives the program with other bytes in its header, or else among the headers of its sections."""
    data = program.read_bytes()
    sections = int.from_bytes(data[0x28:0x30], "little")

    def of(changes: list[tuple[bool, int, int]]) -> bytes:
        changed = bytearray(data)
        for in_header, place, byte in changes:
            at = place % 0x40 if in_header else min(sections + place, len(data) - 1)
            changed[at] = byte
        return bytes(changed)

    return of


@given(changes=st.lists(st.tuples(st.booleans(), st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_program_gives_probes_or_an_error_of_its_own(
    damaged: Callable[[list[tuple[bool, int, int]]], bytes], changes: list[tuple[bool, int, int]]
) -> None:
    with contextlib.suppress(NotesError):
        sdt_probes(damaged(changes), "qemu")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is no ELF program"),
        (b"#!/bin/sh\n", "it is no ELF program"),
        (b"\x7fELF\x01\x01" + bytes(60), "no 64-bit program"),
    ],
)
def test_what_is_no_program_is_refused_with_what_to_do(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "qemu").write_bytes(content)
    made = script(tmp_path / "qemu", "stap")
    assert (made.code, made.out) == (2, "")
    assert why in made.err
    assert "--enable-trace-backends=dtrace" in made.err


def test_a_program_without_probes_is_refused_with_what_to_do() -> None:
    made = script("/bin/sh", "stap")
    assert (made.code, made.out) == (2, "")
    assert "no USDT probes of QEMU" in made.err
    assert "--enable-trace-backends=dtrace" in made.err


def test_a_path_into_a_container_stays_one(program: Path) -> None:
    """What /proc/PID/root leads to is another root, although it reads as a link to /."""
    inside = Path(f"/proc/{os.getpid()}/root{program}")
    assert f'"{inside}"' in script(inside, "stap").out


def test_a_path_that_would_break_the_script_is_refused(program: Path, tmp_path: Path) -> None:
    (tmp_path / 'a"b').symlink_to(program)
    copied = tmp_path / 'c"d'
    copied.write_bytes(program.read_bytes())
    assert script(tmp_path / 'a"b', "stap").code == 0, "what it points to is taken"
    made = script(copied, "stap")
    assert (made.code, made.out) == (2, "")
    assert "copy or bind-mount the program" in made.err


@pytest.mark.parametrize("tool", ["bpftrace", "stap"])
def test_events_that_rules_look_at_one_by_one_are_printed_and_the_others_added_up(program: Path, tool: str) -> None:
    made = script(program, tool)
    assert made.code == 0, made.err
    summed = set(re.findall(r"otelbridge_sum (\w+) ", made.out))
    wanted = load_with_shipped((), builtin()).plan
    assert summed.isdisjoint(wanted.rows)
    assert {"ram_save_page", "multifd_send_fill"} <= summed
    printed = set(re.findall(r"@%\w+ (\w+)|@%s000 (\w+)", made.out))
    assert {"postcopy_page_req_add", "postcopy_page_req_del"} <= {name for pair in printed for name in pair}


# --- what the programs say of the scripts ------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS)
def test_systemtap_accepts_the_script(program: Path, tmp_path: Path, need: Need, options: tuple[str, ...]) -> None:
    need("stap", "it checks the script")
    kernels = sorted(Path("/usr/src").glob("linux-headers-*-*64"))
    need(str(kernels[-1] if kernels else "/usr/src/linux-headers"), "SystemTap looks at nothing without a kernel's headers")
    made = script(program, "stap", *options)
    assert made.code == 0, made.err
    path = tmp_path / "qemu.stp"
    path.write_text(made.out)
    checked = subprocess.run(["stap", "-r", kernels[-1], "-p2", path], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert len(re.findall(r"^process.*\.statement", checked.stdout, re.MULTILINE)) == made.out.count('.mark("')


@pytest.mark.parametrize("options", OPTIONS)
def test_bpftrace_accepts_the_script(program: Path, tmp_path: Path, need: Need, options: tuple[str, ...]) -> None:
    need("bpftrace", "it checks the script")
    made = script(program, "bpftrace", *options)
    assert made.code == 0, made.err
    assert TOO_MANY in made.err
    path = tmp_path / "qemu.bt"
    path.write_text(made.out)
    environment = {**os.environ, "BPFTRACE_MAX_PROBES": "1024"}
    checked = subprocess.run(["bpftrace", "-d", path], check=False, capture_output=True, text=True, env=environment)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


# --- what the program fires, as bpftrace prints it ----------------------------------------------------------


def test_what_is_fired_comes_out_with_all_its_arguments(program: Path, tmp_path: Path, need: Need) -> None:
    need("bpftrace", "it runs the script")
    first = subprocess.run(
        ["bpftrace", "-e", f"usdt:{program}:qemu:migrate_set_state {{ exit(); }}", "-c", program],
        check=False,
        capture_output=True,
    )
    if first.returncode != 0:
        pytest.skip("the kernel lets bpftrace set no probe of a program")
    made = script(program, "bpftrace", "--qemu-version", VERSION)
    (tmp_path / "qemu.bt").write_text(made.out)
    environment = {**os.environ, "BPFTRACE_MAX_PROBES": "1024", "BPFTRACE_STRLEN": "64"}
    run = subprocess.run(
        ["bpftrace", tmp_path / "qemu.bt", "-c", program], check=True, capture_output=True, text=True, env=environment
    )
    lines = [found for line in run.stdout.splitlines() if (found := STAMP.fullmatch(line))]
    wanted = re.findall(r":qemu:(\w+)\n", made.out)
    assert len(lines) == len(wanted) > 300
    declared = {spec.name: spec for spec in specs()}
    names = {spec.name: tuple(argument.name for argument in spec.arguments) for spec in declared.values()}
    decoder = TextDecoder(builtin(), names, VERSION)
    for _process, thread, name, rest in (line.groups() for line in lines):
        event, *summed = name.split("__")
        fired = [value_of(argument.ctype, i) for i, argument in enumerate(declared[event].arguments)]
        if thread is not None:
            assert decoder.decode(event, rest[1:].encode()) == tuple(fired), rest
        else:
            added = [value for name_, value in zip(names[event], fired, strict=True) if name_ in summed]
            number, _since, *sums = map(int, re.findall(r"-?\d+", rest.partition(":")[2]))
            assert (number, sums) == (1, [value - (1 << 64) * (value >= 1 << 63) for value in added])
    accounting = tmp_path / "accounting.json"
    (tmp_path / "trace").write_text(run.stdout)
    done = call("convert", "--format", "stap", tmp_path / "trace", "--to", f"file:{tmp_path}", "--accounting", accounting)
    assert done.code == 0, done.err
