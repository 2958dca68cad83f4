"""Where it goes: the places that `--to` names, else the environment's, else the terminal."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from otelbridge.errors import UsageError
from otelbridge.otlp import Sink
from otelbridge.pipeline.options import ConvertOptions
from otelbridge.readers.inputs import TraceInput

if TYPE_CHECKING:
    from otelbridge.otlp.outbox import Outbox
    from otelbridge.view.picture import Picture


def open_sinks(
    options: ConvertOptions, env: MappingType[str, str], traces: Sequence[TraceInput], stack: ExitStack
) -> tuple[list[Sink], Picture | None]:
    """The places that it goes to. With none named it is the environment's endpoint, else the terminal."""
    spool: Outbox | None = None
    if options.spool is not None:
        from otelbridge.otlp.outbox import Outbox as Box  # noqa: PLC0415  # only with --spool

        spool = stack.enter_context(Box(options.spool))
    timed = all(trace.look.stamp or options.assume_start_ns is not None for trace in traces)
    if not options.to and timed and _has_endpoint(env):
        return [_otlp(None, options, env, spool)], None
    sinks: list[Sink] = []
    picture: Picture | None = None
    for to in dict.fromkeys(options.to or ("console",)):
        if to == "console":
            from otelbridge.view.picture import Picture as Drawn  # noqa: PLC0415  # only for a picture

            picture = Drawn()
            sinks.append(picture)
        else:
            sinks.append(_sink(to, options, env, spool))
    return sinks, picture


def _has_endpoint(env: MappingType[str, str]) -> bool:
    """Whether the environment names a destination."""
    if not any(name.startswith("OTEL_EXPORTER_OTLP_") for name in env):
        return False
    from otelbridge.otlp.settings import configured  # noqa: PLC0415  # it brings TLS, which a picture does not need

    return configured(env)


def _sink(to: str, options: ConvertOptions, env: MappingType[str, str], spool: Outbox | None) -> Sink:
    kind, colon, rest = to.partition(":")
    if kind == "file" and colon and rest:
        from otelbridge.otlp.file import FileSink  # noqa: PLC0415  # each kind of sink is imported when it is asked for

        return FileSink(Path(rest))
    if kind == "sdk" and colon and rest:
        from otelbridge.otlp.sdk import SdkSink  # noqa: PLC0415

        return SdkSink(rest, env)
    if kind in ("http", "https", "grpc", "grpcs") and rest.startswith("//"):
        return _otlp(to, options, env, spool)
    raise UsageError(
        f"--to '{to}' is no destination; it should be console, file:DIR, http://…, https://…, grpc://…, grpcs://… or sdk:NAME."
    )


def _otlp(to: str | None, options: ConvertOptions, env: MappingType[str, str], spool: Outbox | None) -> Sink:
    from otelbridge.otlp.delivery import otlp_sink  # noqa: PLC0415

    return otlp_sink(to, env, give_up_s=options.give_up_s, spool=spool)
