"""Shell completion, asked for as the shells' own scripts ask."""

from __future__ import annotations

import pytest

from tests.convert.command import run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_load_its_script(shell: str) -> None:
    done = run(env={"_OTELBRIDGE_COMPLETE": f"{shell}_source"})
    assert (done.code, done.err) == (0, "")
    assert "_OTELBRIDGE_COMPLETE" in done.out


def completions(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    typed = " ".join(["otelbridge", *words])
    env = {"_OTELBRIDGE_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words))}
    done = run(env=env)
    assert (done.code, done.err) == (0, "")
    return [line.partition(",")[2] for line in done.out.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("con",), {"convert"}),
        (("convert", "--ass"), {"--assume-start"}),
        (("convert", "--s"), {"--source", "--spool"}),
        (("convert", "--format", ""), {"auto", "log"}),
        (("mapping", ""), {"check", "test", "coverage", "explain", "schema", "list", "events"}),
        (("mapping", "events", "--format", ""), {"events-file", "qmp", "libvirt", "virsh", "hmp"}),
        (("catalogue", ""), {"show", "diff", "check"}),
        (("catalogue", "show", "migrate_set"), {"migrate_set_state"}),
        (("mapping", "explain", "--event", "savevm_section_s"), {"savevm_section_start", "savevm_section_skip"}),
        (("spool", ""), {"verify", "show", "replay", "drop"}),
    ],
)
def test_words_are_completed(words: tuple[str, ...], offered: set[str]) -> None:
    assert set(completions(*words)) >= offered


def test_files_are_left_to_the_shell() -> None:
    done = run(env={"_OTELBRIDGE_COMPLETE": "bash_complete", "COMP_WORDS": "otelbridge convert s", "COMP_CWORD": "2"})
    assert done.out.splitlines()[0].partition(",")[0] in ("file", "plain")
