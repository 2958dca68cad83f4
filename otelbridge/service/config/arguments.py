"""The configuration without a file: `otelbridge run LOG…` and the environment."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

from otelbridge.errors import UsageError
from otelbridge.otlp.settings import endpoints
from otelbridge.pipeline.options import environment_attributes
from otelbridge.service.config import DestinationConfig, InputConfig, OutboxConfig, ServiceConfig
from otelbridge.service.config.destinations import ENVIRONMENT

NO_STATE_FOLDER = "write 'outbox: {folder: …}', or set STATE_DIRECTORY, XDG_STATE_HOME or HOME"


def config_of_arguments(files: Sequence[str], env: Mapping[str, str]) -> ServiceConfig:
    """What is to be done with files alone: they are followed from their start, and go where the environment says.

    Args:
        files: Paths of logs and named pipes, and patterns. A path that exists is taken as it is, whatever is in it.
        env: The environment.

    Raises:
        UsageError: No file is named, one cannot be followed, or a variable of OpenTelemetry cannot be used.
    """
    folder = state_folder(env)
    if folder is None:
        raise UsageError("There is no folder for the outbox; set STATE_DIRECTORY, XDG_STATE_HOME or HOME, or use --config.")
    return ServiceConfig(
        inputs=_inputs(files),
        destinations=environment_destinations(env),
        outbox=OutboxConfig(folder),
        resource=environment_attributes(env),
    )


def _inputs(files: Sequence[str]) -> tuple[InputConfig, ...]:
    if not files:
        raise UsageError("There is nothing to follow; name log files, or a configuration with --config otelbridge.yaml.")
    patterns, pipes = [], []
    for name in dict.fromkeys(files):
        path = Path(name).absolute()
        if name == "-":
            raise UsageError("Standard input cannot be followed; `otelbridge convert -` reads it, or name a pipe (mkfifo).")
        if path.is_dir():
            raise UsageError(f"'{name}' is a folder; name the files in it, for example '{name.rstrip('/')}/*.log' in quotes.")
        if path.is_fifo():
            pipes.append(InputConfig("pipe", (str(path),)))
        else:
            patterns.append(glob.escape(str(path)) if path.exists() else str(path))
    return (*((InputConfig("files", tuple(patterns)),) if patterns else ()), *pipes)


def environment_destinations(env: Mapping[str, str]) -> tuple[DestinationConfig, ...]:
    """The one destination that the OTEL_EXPORTER_OTLP_* variables describe.

    Raises:
        UsageError: A variable cannot be used.
    """
    return (DestinationConfig(ENVIRONMENT, endpoints(None, env)),)


def state_folder(env: Mapping[str, str]) -> Path | None:
    """Where a service keeps its state: systemd's folder for it, else the user's; None where there is neither.

    Source: systemd.exec(5), StateDirectory= (several are separated by colons); XDG Base Directory Specification (relative
    paths do not count).
    """
    for variable, below in (("STATE_DIRECTORY", ""), ("XDG_STATE_HOME", "otelbridge"), ("HOME", ".local/state/otelbridge")):
        value = env.get(variable, "").partition(":")[0] if variable == "STATE_DIRECTORY" else env.get(variable, "")
        if value.startswith("/"):
            return Path(value) / below
    return None
