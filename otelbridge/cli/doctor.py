"""`otelbridge doctor`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelbridge.cli.options import PATH
from otelbridge.cli.terminal import tell
from otelbridge.errors import UsageError

if TYPE_CHECKING:
    from otelbridge.doctor import Finding

PROBLEMS_FOUND = 3

_EXAMPLES = """
\b
Examples:
  otelbridge doctor                                    libvirt's logs, and what OTEL_EXPORTER_OTLP_* say
  otelbridge doctor --config otelbridge.yaml           what that file names
  otelbridge doctor /var/log/vms --qemu /usr/libexec/qemu-kvm

\b
Exit codes:
  0 nothing is a problem             2 wrong command line
  3 there are problems, or the configuration has some
"""


@click.command("doctor", epilog=_EXAMPLES)
@click.argument("folder", metavar="[LOGDIR]", required=False, type=click.Path(readable=False, path_type=Path))
@click.option("--config", type=PATH, metavar="FILE", help="The service's configuration: its inputs, destinations and outbox.")
@click.option(
    "--qemu", type=PATH, metavar="PATH", help="The QEMU that runs the machines; those that are installed unless given."
)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def doctor_command(folder: Path | None, config: Path | None, qemu: Path | None, as_json: bool) -> None:
    """Say what stands between this machine's QEMU logs and spans in a backend, and what to do about it.

    LOGDIR is the folder of QEMU's logs: what --config names unless given, else /var/log/libvirt/qemu. A QEMU is started for
    a moment, without memory and disks, and each destination gets an empty request. Nothing is changed. It takes some seconds.
    """
    # gRPC reads it when it is imported; what it would write to standard error is in its verdicts as well.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from otelbridge.doctor import Examined, examine  # noqa: PLC0415  # `--help` must not wait for it
    from otelbridge.service.config.parse import load_config  # noqa: PLC0415

    if qemu is not None and not (qemu.is_file() and os.access(qemu, os.X_OK)):
        raise UsageError(f"--qemu '{qemu}' is no program that can be run; give the QEMU that runs the machines.")
    loaded = load_config(config, os.environ) if config is not None else None
    findings = examine(Examined(folder, loaded, qemu), os.environ)
    marks = Counter[str](finding.mark for finding in findings)
    tell([_as_json(findings)] if as_json else [*_lines(findings), "", _summary(marks)])
    if marks["problem"]:
        raise click.exceptions.Exit(PROBLEMS_FOUND)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """`warning  rotation: virtlogd keeps …`, and what to do below it."""
    for finding in findings:
        yield f"{finding.mark:<9}{finding.about}: {finding.text}"
        if finding.help:
            yield f"{'':<9}  help: {finding.help}"


def _summary(marks: Counter[str]) -> str:
    from otelbridge.view.text import count_text  # noqa: PLC0415

    return f"{count_text(marks['problem'], 'problem')}, {count_text(marks['warning'], 'warning')}, {marks['ok']} are ok."


def _as_json(findings: Sequence[Finding]) -> str:
    return json.dumps({"findings": [finding._asdict() for finding in findings]}, ensure_ascii=False)
