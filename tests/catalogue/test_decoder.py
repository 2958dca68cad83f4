"""Texts of one stream: the declaration that fits is chosen, and with it the versions that can have written the stream."""

from __future__ import annotations

import ctypes
import gzip
import re
from pathlib import Path

import pytest

from otelbridge.catalogue import VERSIONS, TextDecoder, builtin, catalogue_from, resolve_version
from otelbridge.catalogue.printf import is_text
from otelbridge.catalogue.trace_events import parse_trace_events
from otelbridge.errors import UsageError

WANTED = {
    "migrate_transferred": ("transferred", "tranferred", "avail_bw", "size"),
    "loadvm_process_command": ("com", "s"),
    "vmstate_load_state_field": ("name", "field", "exists"),
    "migrate_set_state": ("new_state",),
}


def decoder(version: str | None = None) -> TextDecoder:
    return TextDecoder(builtin(), WANTED, version)


# --- choice -----------------------------------------------------------------------------------------


def test_a_new_text_is_read_by_the_new_declaration() -> None:
    raw = b"transferred 100 time_spent 5 bandwidth 20 switchover_bw 30 max_size 4000"
    stream = decoder()
    assert stream.decode("migrate_transferred", raw) == (100, None, 30, 4000)
    assert stream.version_range == "8.2.0 - 11.0-dev"


def test_an_old_text_is_read_by_a_declaration_that_prints_it() -> None:
    raw = b"transferred 100 time_spent 5 bandwidth 20 max_size 4000"
    stream = decoder()
    found = stream.decode("migrate_transferred", raw)
    assert found is not None
    assert 100 in found[:2]
    assert found[2:] == (None, 4000)
    assert stream.version_range == "3.1.0 - 8.1.0"


def test_a_last_text_argument_does_not_swallow_the_arguments_that_came_after_it() -> None:
    """11.0 has lost the host and the error, so its declaration fits every older text too."""
    raw = b"ioc=0x1 ioctype=qio-channel-command hostname=(null) err=(nil)"
    stream = TextDecoder(builtin(), {"migration_set_outgoing_channel": ("ioctype", "hostname")})
    assert stream.decode("migration_set_outgoing_channel", raw) == ("qio-channel-command", "(null)")
    assert stream.decode("migration_set_outgoing_channel", b"ioc=0x1 ioctype=qio-channel-file") == ("qio-channel-file", None)


def test_what_one_event_says_of_the_version_chooses_the_declaration_of_another() -> None:
    """Up to 8.0 the argument was called `tranferred`; the texts are the same."""
    raw = b"transferred 100 time_spent 5 bandwidth 20 max_size 4000"
    stream = decoder()
    stream.saw("loadvm_postcopy_handle_run_cpu_sync")  # not in 5.0 and newer
    assert stream.decode("migrate_transferred", raw) == (None, 100, None, 4000)


def test_an_event_that_came_and_went_limits_both_ends() -> None:
    stream = decoder()
    stream.saw("calc_page_dirty_rate")
    assert stream.version_range == "5.2.0 - 11.0-dev"
    stream.saw("migrate_pending")
    assert stream.version_range == "5.2.0 - 7.2.0"


def test_seeing_an_event_of_every_version_tells_nothing() -> None:
    stream = decoder()
    stream.saw("migrate_set_state")
    stream.saw("no_such_event")
    assert stream.version_range is None


def test_a_contradiction_leaves_the_range_as_it_was() -> None:
    """A distribution's build may have an event early."""
    stream = decoder()
    stream.saw("migrate_pending")  # up to 7.2
    stream.saw("cpr_exec")  # from 10.2
    assert stream.version_range == "3.1.0 - 7.2.0"


def test_a_text_of_a_version_that_is_out_is_decoded_all_the_same() -> None:
    stream = decoder("4.1.0")
    raw = b"transferred 100 time_spent 5 bandwidth 20 switchover_bw 30 max_size 4000"
    assert stream.decode("migrate_transferred", raw) == (100, None, 30, 4000)
    assert stream.version_range == "4.1.0"


def test_the_format_of_the_input_limits_the_versions() -> None:
    stream = decoder()
    stream.limit("10.1.0", None)
    assert stream.version_range == "10.1.0 - 11.0-dev"
    stream.limit(None, "10.1.0")
    assert stream.version_range == "10.1.0"


def test_a_told_version_stands_and_chooses() -> None:
    stream = decoder("8.0.0")
    raw = b"transferred 100 time_spent 5 bandwidth 20 max_size 4000"
    assert stream.decode("migrate_transferred", raw) == (None, 100, None, 4000)
    stream.saw("cpr_exec")
    assert stream.version_range == "8.0.0"


@pytest.mark.parametrize("raw", [b"", b"old state setup", b"new  state", b"\xff\xfe"])
def test_a_text_that_fits_no_declaration_gives_nothing(raw: bytes) -> None:
    stream = decoder()
    assert stream.decode("migrate_set_state", raw) is None
    assert stream.decode("migrate_set_state", b"new state setup") == ("setup",)
    assert stream.decode("migrate_set_state", raw) is None, "also when one declaration is left and needs no choice"


def test_an_event_known_by_name_alone_gives_nothing() -> None:
    assert decoder().decode("virtio_set_status", b"vdev 0x1 val 2") is None


def test_a_users_declaration_is_used() -> None:
    catalogue, _ = catalogue_from('migrate_set_state(int code) "state=%d"\n', "trace-events")
    stream = TextDecoder(catalogue, {"migrate_set_state": ("code",)})
    assert stream.decode("migrate_set_state", b"state=4") == (4,)
    assert stream.decode("migrate_set_state", b"new state setup") is None


# --- snapshots --------------------------------------------------------------------------------------


def test_what_was_learnt_outlives_a_snapshot() -> None:
    first = decoder()
    first.saw("calc_page_dirty_rate")
    first.saw("migrate_pending")
    second = decoder()
    second.decode("migrate_set_state", b"new state setup")
    second.restore(first.snapshot())
    assert second.version_range == "5.2.0 - 7.2.0"
    raw = b"transferred 1 time_spent 5 bandwidth 20 max_size 4"
    assert second.decode("migrate_transferred", raw) == (None, 1, None, 4)


@pytest.mark.parametrize("versions", [[], ["1.0.0"]])
def test_a_snapshot_of_versions_that_are_not_known_any_more_starts_anew(versions: list[str]) -> None:
    stream = decoder()
    stream.restore({"versions": versions})
    assert stream.version_range is None


# --- the version a user names -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.1.0", "3.1.0"),
        ("3.1", "3.1.0"),
        ("4.1.0", "4.1.0"),
        ("7.2", "7.2.0"),
        ("7.2.22", "7.2.0"),
        ("v9.2.0", "9.2.0"),
        ("qemu-10.2.0", "10.2.0"),
        (" 10.2.0 ", "10.2.0"),
        ("8.2.2+ds-0ubuntu1", "8.2.0"),
        ("1:7.2+dfsg-7", "7.2.0"),
        ("7.2.50", "7.2.0"),
        ("10.2.0-rc1", "10.2.0"),
        ("11.0-dev", "11.0-dev"),
        ("11.0.0", "11.0-dev"),
        ("12.1", "11.0-dev"),
        ("6.3", "6.2.0"),
    ],
)
def test_a_version_is_resolved_to_the_release_that_declares_the_same(text: str, version: str) -> None:
    assert resolve_version(text) == version


@pytest.mark.parametrize("text", ["", "seven", "7", "7.2x", "x7.2", "7.2 or so"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no QEMU version"):
        resolve_version(text)


@pytest.mark.parametrize("text", ["2.12.0", "3.0", "1.7"])
def test_a_version_that_is_too_old_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(UsageError, match="--catalogue"):
        resolve_version(text)


# --- real logs --------------------------------------------------------------------------------------

REAL = {"debian-7.2": "7.2.0", "qemu-4.1.0-log": "4.1.0", "qemu-9.2.0-log": "9.2.0", "qemu-10.2.0-log": "10.2.0"}
LINE = re.compile(rb"(?:\d+@\d+\.\d{6}:|\d{4}-\d\d-\d\dT[\d:.]+Z )?([a-z_]\w*) ?(.*)")


def within(version: str, text: str | None) -> bool:
    if text is None:
        return True
    first, _, last = text.partition(" - ")
    return VERSIONS.index(first) <= VERSIONS.index(version) <= VERSIONS.index(last or first)


@pytest.mark.parametrize("folder", REAL)
def test_every_event_of_a_real_log_decodes_and_the_versions_left_hold_the_real_one(shared: Path, folder: str) -> None:
    """Each different text of an event once; the arguments of all declarations are wanted."""
    wanted = {
        name: tuple({argument.name: None for spec in builtin().variants(name) for argument in spec.arguments})
        for name in builtin().declared()
    }
    decodable = frozenset(wanted)
    paths = sorted(path for path in (shared / "recordings" / folder).glob("*/*.log*"))
    assert paths
    for path in paths:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        stream, undecoded, number = TextDecoder(builtin(), wanted), set(), 0
        for line in set(content.splitlines()):
            found = LINE.fullmatch(line)
            name = found[1].decode() if found else ""
            if found is None or name not in decodable:
                continue
            stream.saw(name)
            number += 1
            if stream.decode(name, found[2]) is None:
                undecoded.add(line)
        assert undecoded == set(), path
        assert within(REAL[folder], stream.version_range), (path, stream.version_range)
        assert number or not content or path.stat().st_size < 1000, path


# --- lines of every version -------------------------------------------------------------------------


def printed(form: str, values: list[int | str]) -> bytes:
    """What this machine's printf prints."""
    buffer = ctypes.create_string_buffer(4096)
    given = [ctypes.c_char_p(v.encode()) if isinstance(v, str) else ctypes.c_uint64(v & (1 << 64) - 1) for v in values]
    length = ctypes.CDLL(None).snprintf(buffer, ctypes.c_size_t(len(buffer)), form.encode(), *given)
    assert 0 <= length < len(buffer)
    return buffer.raw[:length]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_line_of_each_event_of_each_version_decodes_to_its_arguments(shared: Path, version: str) -> None:
    """Lines are printed from that release's own trace-events file and decoded knowing no more than the release."""
    (path,) = [
        p for p in (shared / "catalogs").glob("*.trace-events") if p.name.startswith(f"{version}.") or f"{version}-" in p.name
    ]
    specs = parse_trace_events(path.read_text("utf-8"), str(path)).specs
    assert len(specs) > 200
    for spec in specs:
        # Small and different, so that a mixed-up order shows.
        values: list[int | str] = [
            f"name{i}" if is_text(a.ctype) else 1 if a.ctype == "bool" else 3 + i for i, a in enumerate(spec.arguments)
        ]
        wanted = {spec.name: [argument.name for argument in spec.arguments]}
        found = TextDecoder(builtin(), wanted, version).decode(spec.name, printed(spec.format, values))
        assert found == tuple(values), spec.name
