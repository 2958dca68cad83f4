"""All checks, in the order in which they are told."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from otelbridge.catalogue import Catalogue, builtin
from otelbridge.doctor import endpoints, logs, machine, qemu, rotation
from otelbridge.doctor.findings import Finding
from otelbridge.mapping import load_with_shipped
from otelbridge.mapping.switches import events_to_switch_on
from otelbridge.otlp import settings
from otelbridge.records import Signal
from otelbridge.service.config import OutboxConfig, ServiceConfig
from otelbridge.service.config.arguments import environment_destinations, state_folder

Destinations = Mapping[str, Mapping[Signal, settings.Endpoint]]


class Examined(NamedTuple):
    """What is to be looked at.

    Attributes:
        folder: The folder of the logs; None for those that the configuration names, else libvirt's.
        config: The service's configuration, None without one.
        qemu: The QEMU to try, None for those that are installed.
        root: Where the machine's own configuration is below.
    """

    folder: Path | None = None
    config: ServiceConfig | None = None
    qemu: Path | None = None
    root: Path = Path("/")


def examine(what: Examined, env: Mapping[str, str]) -> list[Finding]:
    """Everything that was found. Nothing is changed; it takes some seconds at most.

    Raises:
        OtelbridgeError: The environment, a mapping or the catalogue cannot be used.
    """
    destinations = _destinations(what.config, env)
    catalogue = builtin()
    wanted = events_to_switch_on(load_with_shipped((), catalogue), catalogue.names)
    user = _user()
    programs = [what.qemu] if what.qemu else qemu.installed(env)
    with ThreadPoolExecutor(1 + len(programs)) as pool:
        answers = pool.submit(endpoints.ask, destinations)
        tried = [pool.submit(qemu.look_at_qemu, program, catalogue.is_event, wanted) for program in programs]
        folder = _folder(what, catalogue)
        findings = [qemu.qemu_finding(each.result()) for each in tried] or [qemu.NONE_FOUND]
        findings += logs.log_findings(folder, user, wanted)
        paths = [log.path for log in folder.logs]
        findings += rotation.rotation_findings(rotation.look_at_rotation(paths, folder.sought, what.root), folder.logs)
        findings += endpoints.endpoint_findings(answers.result()) or [endpoints.NO_ENDPOINT]
    outbox = what.config.outbox if what.config else OutboxConfig(state_folder(env) or Path())
    place = outbox.folder if what.config else state_folder(env)
    findings.append(machine.outbox_finding(machine.look_at_outbox(place, outbox.limit_bytes), user))
    findings += machine.clock_findings(machine.look_at_clock(int(time.time()), what.root), folder.logs)
    findings.append(machine.files_finding(machine.open_files(), len(folder.logs)))
    return findings


def _destinations(config: ServiceConfig | None, env: Mapping[str, str]) -> Destinations:
    if config is not None:
        return {one.name: one.endpoints for one in config.destinations}
    if not settings.configured(env):
        return {}
    return {one.name: one.endpoints for one in environment_destinations(env)}


def _folder(what: Examined, catalogue: Catalogue) -> logs.FolderFacts:
    if what.folder is None and what.config is not None:
        inputs = [(one.paths, one.exclude) for one in what.config.inputs if one.kind == "files"]
        return logs.look_at_patterns(inputs, catalogue.is_event)
    return logs.look_at_folder(what.folder or logs.DEFAULT_FOLDER, catalogue.is_event)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
