"""A configuration or a mapping that changes while the service runs, or while it is stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.receiver import Receiver
from tests.service.living import (
    HALF,
    NOBODY,
    RECORDING,
    all_read,
    append,
    counter,
    drained,
    ended,
    is_incomplete,
    later,
    log_in,
    named,
)
from tests.service.running import Running, Spans, config_for, converted, received, running, spans_in, until

RULE = "  my.section: {begin: savevm_section_start, end: savevm_section_end, inside: migration, key: [thread, section_id]}\n"
MAPPING = f"version: 1\nscope: my\nspans:\n{RULE}"
SECTIONS = RECORDING.count(b":savevm_section_start ")
SECTIONS_BEGUN = RECORDING[:HALF].count(b":savevm_section_start ")
IN_FORCE = "was read again and is in force"


def taken(service: Running, times: int = 1) -> None:
    """Wait until a reload was done."""
    until(lambda: service.log.count(IN_FORCE) == times)
    assert counter(service, "otelbridge.service.reloads_done") == times


def shipped(spans: Spans) -> Spans:
    """The spans without those of our own rule."""
    return {ids: contents for ids, contents in spans.items() if not any(b"my.section" in one for one in contents)}


def test_a_mapping_that_is_put_into_the_folder_counts_from_then_on_and_an_open_migration_stays_one(tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "empty.yaml").write_text("version: 1\nscope: empty\n")
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, mappings=["mappings"])) as service:
        all_read(service, HALF)
        (tmp_path / "mappings" / "my.yaml").write_text(MAPPING)
        taken(service)
        append(path, RECORDING[HALF:])
        ended(service)
        assert service.stop() == 0
        own = named(receiver, "my.section")
        assert len(own) == SECTIONS - SECTIONS_BEGUN
        assert not any(is_incomplete(span) for span in own)
        (migration,) = named(receiver, "migration")
        assert {span.trace_id for span in own} == {migration.trace_id}
        assert shipped(received(receiver)[0]) == converted([path])[0]


def distinct(receiver: Receiver) -> list[Span]:
    """The spans of our own rule; who is killed before it knows of the answer sends the same again."""
    return list({span.span_id: span for span in named(receiver, "my.section")}.values())


@pytest.mark.parametrize("how", ["while it runs", "while it is stopped", "after it was killed"])
def test_a_rule_that_is_gone_ends_what_it_had_open_and_nothing_else(how: str, tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    mapping = tmp_path / "my.yaml"
    mapping.write_text(MAPPING)
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, mappings=["my.yaml"])) as service:
        all_read(service, HALF)
        until(lambda: len(named(receiver, "my.section")) == SECTIONS_BEGUN - 1)
        if how == "while it runs":
            mapping.write_text("version: 1\nscope: my\n")
            service.send(signal.SIGHUP)
            taken(service)
        else:
            _ = service.kill() if "killed" in how else service.stop()
            mapping.write_text("version: 1\nscope: my\n")
            service.start()
        until(lambda: len(distinct(receiver)) == SECTIONS_BEGUN)
        append(path, RECORDING[HALF:])
        ended(service)
        assert service.stop() == 0
        assert [is_incomplete(span) for span in distinct(receiver)] == [False] * (SECTIONS_BEGUN - 1) + [True]
        assert shipped(received(receiver)[0]) == converted([path])[0]
        assert all(len(contents) == 1 for contents in received(receiver)[0].values())


def test_what_ended_just_before_it_was_killed_does_not_end_again_by_other_rules(tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    mapping = tmp_path / "my.yaml"
    mapping.write_text(MAPPING)
    after_end = RECORDING.index(b"\n", RECORDING.index(b":savevm_section_end ", HALF))
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, mappings=["my.yaml"])) as service:
        all_read(service, HALF)
        until(lambda: len(named(receiver, "my.section")) == SECTIONS_BEGUN - 1)
        append(path, RECORDING[HALF : after_end + 1])
        until(lambda: len(named(receiver, "my.section")) == SECTIONS_BEGUN)
        drained(service)
        service.kill()
        mapping.write_text("version: 1\nscope: my\n")
        service.start()
        all_read(service, after_end + 1)
        service.kill()
        service.start()
        append(path, RECORDING[after_end + 1 :])
        ended(service)
        assert service.stop() == 0
        assert not any(is_incomplete(span) for span in named(receiver, "my.section"))
        assert shipped(received(receiver)[0]) == converted([path])[0]
        assert all(len(contents) == 1 for contents in received(receiver)[0].values())


def test_an_input_that_is_added_is_followed_and_one_that_is_removed_is_ended(tmp_path: Path) -> None:
    first, second = log_in(tmp_path, RECORDING[:HALF], "a.log"), log_in(tmp_path, later(RECORDING, 600), "b.log")

    def inputs(path: Path) -> list[dict[str, str]]:
        return [{"files": str(path), "idle_timeout": "3s"}]

    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, inputs=inputs(first))) as service:
        all_read(service, HALF)
        assert [one["path"] for one in service.status()["inputs"]] == [str(first)]
        service.write_config(inputs=inputs(second))
        taken(service)
        until(lambda: len(named(receiver, "migration")) == 2)
        append(first, RECORDING[HALF:])
        ended(service)
        assert [one["path"] for one in service.status()["inputs"]] == [str(second)]
        assert counter(service, "otelbridge.engine.spans_incomplete") > 0
        assert service.stop() == 0
        assert [is_incomplete(span) for span in named(receiver, "migration")] == [True, False]
        wanted, _ = converted([second])
        assert {ids: content for ids, content in received(receiver)[0].items() if ids in wanted} == wanted


def test_a_destination_that_is_changed_gets_what_comes_then_and_what_waits(tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, NOBODY)) as service:
        all_read(service, HALF)
        service.write_config(destinations={"receiver": {"endpoint": receiver.http_url}})
        taken(service)
        append(path, RECORDING[HALF:])
        ended(service)
        assert service.stop() == 0
        assert received(receiver) == converted([path])


def test_a_destination_that_is_added_gets_what_comes_from_then_on(tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    with Receiver() as one, Receiver() as other, running(tmp_path, config_for(tmp_path, one)) as service:
        all_read(service, HALF)
        drained(service)
        service.write_config(destinations={name: {"endpoint": r.http_url} for name, r in (("receiver", one), ("other", other))})
        taken(service)
        append(path, RECORDING[HALF:])
        ended(service)
        assert service.stop() == 0
        assert received(one) == converted([path])
        assert 0 < len(other.spans()) < len(one.spans())
        assert received(other)[0].items() <= received(one)[0].items()


BAD = {
    "no YAML": ("otelbridge.yaml", "version: 1\ninputs: [", "otelbridge.yaml:3:1: this is not YAML"),
    "an unknown key": (
        "otelbridge.yaml",
        "version: 1\ninputs: [{files: /a.log}]\ndestination: {}\n",
        "otelbridge.yaml:3:1: the file has no key",
    ),
    "a mapping": (
        "my.yaml",
        MAPPING.replace("savevm_section_end", "no_such_event"),
        "my.yaml:4:50: there is no event 'no_such_event'",
    ),
    "a mapping without YAML": ("my.yaml", "version: 1\nspans: [\n", "my.yaml:3:1: this is not YAML"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_leaves_the_one_before_in_force_and_says_where_it_is_wrong(what: str, tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    (tmp_path / "my.yaml").write_text(MAPPING)
    name, text, place = BAD[what]
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, mappings=["my.yaml"])) as service:
        all_read(service, HALF)
        (tmp_path / name).write_text(text)
        service.send(signal.SIGHUP)
        until(lambda: counter(service, "otelbridge.service.reloads_refused") == 1)
        append(path, RECORDING[HALF:])
        ended(service)
        refused = counter(service, "otelbridge.service.reloads_refused")
        assert service.stop() == 0
        assert place in service.log
        assert refused == 1
        assert "stays in force" in service.log
        assert len(named(receiver, "my.section")) == SECTIONS
        spans = spans_in([body for signal, body in receiver.requests if signal == "traces"])
        assert shipped(spans) == converted([path])[0]


def test_each_bad_version_is_told_and_a_good_one_is_taken(tmp_path: Path) -> None:
    with running(tmp_path, config_for(tmp_path, NOBODY)) as service:
        for number, wrong in enumerate(("first", "second"), start=1):
            service.write_config(**{wrong: 1})
            service.send(signal.SIGHUP)
            until(lambda: counter(service, "otelbridge.service.reloads_refused") == number)  # noqa: B023 - called at once
            assert f"'{wrong}'" in service.log
            del service.config[wrong]
        service.write_config()
        service.send(signal.SIGHUP)
        taken(service)


def test_what_can_change_at_once_does_and_what_cannot_is_told(tmp_path: Path) -> None:
    with running(tmp_path, config_for(tmp_path, NOBODY)) as service:
        outbox = {"folder": str(tmp_path / "another")}
        service.write_config(log={"format": "json"}, shutdown={"grace": "1s"}, outbox=outbox)
        until(lambda: '"message": "The configuration was read again' in service.log)
        until(lambda: "under 'outbox' counts only from the next start on" in service.log)
        assert "under 'health'" not in service.log
        assert service.stop() == 0
    assert not (tmp_path / "another").exists()


def test_a_log_that_comes_just_before_a_reload_is_read_from_its_start(tmp_path: Path) -> None:
    old = log_in(tmp_path, RECORDING[:HALF], "old.log")
    inputs = [{"files": str(tmp_path / "logs" / "*.log"), "idle_timeout": "3s", "from": "end"}]
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, inputs=inputs)) as service:
        until(lambda: [one["path"] for one in service.status()["inputs"]] == [str(old)])
        new = log_in(tmp_path, later(RECORDING, 600), "new.log")
        service.send(signal.SIGHUP)
        taken(service)
        ended(service)
        assert service.stop() == 0
        assert received(receiver) == converted([new])


def test_a_header_whose_file_changes_is_sent_as_it_is_from_then_on(tmp_path: Path) -> None:
    """A token that is renewed, as Kubernetes does it with a mounted secret: without a signal, by another file in its place."""
    path = log_in(tmp_path, RECORDING[:HALF])
    token = tmp_path / "token"
    token.write_text("Bearer one\n")
    with Receiver() as receiver:
        destination = {"endpoint": receiver.http_url, "headers": {"authorization": {"file": "token"}}}
        config = config_for(tmp_path, receiver, destinations={"receiver": destination})
        with running(tmp_path, config) as service:
            all_read(service, HALF)
            drained(service)
            renewed = tmp_path / "renewed"
            renewed.write_text("Bearer two\n")
            renewed.replace(token)
            taken(service)
            before = len(receiver.headers)
            append(path, RECORDING[HALF:])
            ended(service)
            drained(service)
            assert service.stop() == 0
        sent = [headers["authorization"] for headers in receiver.headers]
        assert set(sent[before:]) == {"Bearer two"}
        assert sent[0] == "Bearer one"
        assert received(receiver)[0] == converted([path])[0]


def test_a_pipe_stays_open_while_the_configuration_is_read_again(tmp_path: Path) -> None:
    """Its writer would get EPIPE, and what it writes before the pipe is open again would be lost."""
    os.mkfifo(tmp_path / "qemu.fifo")
    with Receiver() as receiver:
        config = config_for(tmp_path, receiver, inputs=[{"pipe": str(tmp_path / "qemu.fifo"), "idle_timeout": "3s"}])
        with running(tmp_path, config) as service, (tmp_path / "qemu.fifo").open("wb", buffering=0) as writer:
            lines = iter(RECORDING.splitlines(keepends=True))
            for times in range(1, 6):
                service.send(signal.SIGHUP)
                while counter(service, "otelbridge.service.reloads_done") < times:
                    writer.write(next(lines))
            for line in lines:
                writer.write(line)
            all_read(service, len(RECORDING))
            assert service.status()["losses"] == {}
            writer.close()
            ended(service)
            assert service.stop() == 0
        spans, _ = received(receiver)
    assert len(spans) == len(converted([log_in(tmp_path)])[0])
