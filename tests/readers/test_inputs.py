"""Which files are one QEMU's trace, what the user called them, and what tells each from the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.errors import UsageError
from otelbridge.readers.inputs import TraceInput, base_name, group_inputs


def head(thread: int, micros: int = 1) -> bytes:
    return b"%d@1795407950.%06d:migrate_set_state new state setup\n" % (thread, micros)


def grouped(heads: dict[str, bytes], sources: tuple[str, ...] = (), destinations: tuple[str, ...] = ()) -> list[TraceInput]:
    files = [path for path in heads if path not in (*sources, *destinations)]
    return group_inputs(files, sources, destinations, heads.__getitem__, dict.fromkeys(heads, "log"), builtin().is_event)


def test_files_of_the_threads_of_one_qemu_are_one_input() -> None:
    found = grouped({"d/src-11.log": head(11), "d/dst.log": head(5), "d/src-12.log": head(12), "d/src-13.log": b""})
    assert [(one.paths, one.threads) for one in found] == [
        (("d/src-11.log", "d/src-12.log", "d/src-13.log"), (11, 12, 13)),
        (("d/dst.log",), (None,)),
    ]


def test_files_of_threads_of_10_1_and_newer_hold_no_number_and_are_one_input() -> None:
    iso = b"2026-11-23T04:30:01Z migrate_set_state new state setup\n"
    (found,) = grouped({"src-11.log": iso, "src-12.log": iso})
    assert found.threads == (11, 12)


@pytest.mark.parametrize(
    "heads",
    [
        {"vm-1.log": head(700), "vm-2.log": head(900)},
        {"vm-1.log": head(1) + head(700), "vm-2.log": head(2) + head(900)},
        {"a/src-1.log": head(1), "b/src-2.log": head(2)},
        {"src-1.log": head(1), "dst-2.log": head(2)},
        {"src-1.log": head(1), "src-2.txt": head(2)},
        {"src.log": head(1), "src.log.1": head(1)},
    ],
    ids=["names-of-machines", "more-than-the-thread", "folders", "stems", "endings", "rotated"],
)
def test_files_that_only_look_alike_stay_apart(heads: dict[str, bytes]) -> None:
    assert [one.paths for one in grouped(heads)] == [(path,) for path in heads]


def test_one_file_of_a_thread_alone_needs_no_thread() -> None:
    (found,) = grouped({"src-11.log": head(11)})
    assert (found.paths, found.threads) == (("src-11.log",), (None,))


def test_packed_files_of_threads_are_one_input() -> None:
    (found,) = grouped({"src-11.log.gz": head(11), "src-12.log.gz": head(12)})
    assert found.threads == (11, 12)


def test_the_roles_that_the_user_gave_go_with_the_inputs_in_their_order() -> None:
    heads = {"x.log": head(1), "s.log": head(2), "d.log": head(3)}
    found = grouped(heads, sources=("s.log",), destinations=("d.log",))
    assert [(one.name, one.role) for one in found] == [("x.log", None), ("s.log", "source"), ("d.log", "destination")]


def test_a_file_named_twice_is_read_once() -> None:
    heads = {"s.log": head(1)}
    found = group_inputs(["s.log", "s.log"], ["s.log"], [], heads.__getitem__, dict.fromkeys(heads, "log"), builtin().is_event)
    assert [(one.paths, one.role) for one in found] == [(("s.log",), "source")]


def test_a_file_cannot_be_source_and_destination() -> None:
    with pytest.raises(UsageError, match=r"'s\.log' is named as --source and as --destination"):
        group_inputs([], ["s.log"], ["s.log"], lambda _path: b"", {"s.log": "log"}, builtin().is_event)


def test_an_identity_is_the_same_in_another_folder_and_packed() -> None:
    (one,) = grouped({"a/src.log": head(1)})
    (two,) = grouped({"/elsewhere/src.log.gz": head(1) + head(2)})
    (three,) = grouped({"src.log.xz": head(1)})
    assert one.identity == two.identity == three.identity


@pytest.mark.parametrize(
    "heads",
    [
        {"a/src.log": head(1, 5), "b/src.log": head(1, 6)},
        {"a.log": head(1), "b.log": head(1)},
        {"a/src.log": head(1), "b/src.log": head(1)},
        {"a/src.log": b"x\n", "b/src.log": b"y\n"},
        {"a/src.log": b"", "b/src.log": b"", "c/src.log": b""},
    ],
    ids=["time", "name", "copies", "no-events", "empty"],
)
def test_no_two_inputs_have_one_identity(heads: dict[str, bytes]) -> None:
    found = grouped(heads)
    assert len({one.identity for one in found}) == len(heads)


@pytest.mark.parametrize(("path", "name"), [("-", "stdin"), ("a/b/src.log", "src.log"), ("src.log", "src.log")])
def test_an_input_is_named_without_its_folder(path: str, name: str) -> None:
    assert base_name(path) == name


def test_the_files_of_a_real_qemu_with_a_log_for_each_thread(shared_recordings: Path) -> None:
    paths = [str(path) for path in sorted((shared_recordings / "debian-7.2" / "log-per-thread").glob("*.log"))]
    heads = {path: Path(path).read_bytes()[:65536] for path in paths}
    found = group_inputs(paths, [], [], heads.__getitem__, dict.fromkeys(heads, "log"), builtin().is_event)
    assert [(len(one.paths), one.threads) for one in found] == [(1, (None,)), (3, (25397, 25412, 25413))]
