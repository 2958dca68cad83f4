"""The configuration as it counts: every default filled in, no secret shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from otelbridge.durations import duration_text
from otelbridge.otlp.settings import Endpoint
from otelbridge.records import SECOND_NS
from otelbridge.service.config import DestinationConfig, HealthConfig, InputConfig, ServiceConfig, keys
from otelbridge.service.config.concealed import HIDDEN
from otelbridge.service.config.destinations import ENVIRONMENT
from otelbridge.sizes import size_text


def effective(config: ServiceConfig) -> str:
    """The configuration as the YAML that says the same; header values and what follows a `?` in an address are hidden.

    The same configuration gives the same text. Read again, it gives the same configuration, the secrets apart; where the
    destination is the environment's it stands in a comment, and the environment has to be the same.
    """
    written = [one for one in config.destinations if one.name != ENVIRONMENT]
    document = {
        "version": 1,
        "inputs": [_input(one) for one in config.inputs],
        "mappings": [str(path) for path in config.mappings],
        "catalogue": _text(config.catalogue),
        "destinations": {one.name: _destination(one) for one in written},
        "outbox": {
            "folder": str(config.outbox.folder),
            "limit": size_text(config.outbox.limit_bytes),
            "rejected_limit": size_text(config.outbox.rejected_limit_bytes),
        },
        "resource": dict(config.resource),
        "limits": {"streams": config.max_streams},
        "telemetry": {
            "destination": config.telemetry.destination,
            "interval": duration_text(config.telemetry.interval_ns),
        },
        "health": {"address": _address(config.health)},
        "log": {"format": config.log.format, "level": config.log.level},
        "shutdown": {"grace": duration_text(config.grace_ns)},
    }
    return "".join([_yaml(_escaped(document)), *map(_environment_s, config.destinations)])


def _input(config: InputConfig) -> dict[str, Any]:
    values = {
        config.kind: list(config.paths) if config.kind != "pipe" else config.paths[0],
        "exclude": list(config.exclude),
        "journal": _text(config.journal),
        "format": config.format,
        "from": config.start,
        "role": config.role,
        "name": config.name or None,
        "attributes": dict(config.attributes),
        "idle_timeout": duration_text(config.idle_timeout_ns),
        "qemu_version": config.qemu_version,
        "clock": _text(config.clock),
    }
    return {name: value for name, value in values.items() if name not in keys.NOT_WITH[config.kind]}


def _destination(config: DestinationConfig) -> dict[str, Any]:
    signal, endpoint = next(iter(config.endpoints.items()))
    base = endpoint.name.removesuffix(f"/v1/{signal}")
    return {"endpoint": base + _query(endpoint), "signals": list(config.endpoints)} | _delivery(endpoint)


def _delivery(endpoint: Endpoint) -> dict[str, Any]:
    """How it is sent, the same for each signal of a destination of the file."""
    described: dict[str, Any] = {
        "headers": dict.fromkeys((name for name, _ in endpoint.headers), HIDDEN),
        "compression": "gzip" if endpoint.gzip else "none",
        "timeout": "0s" if math.isinf(endpoint.timeout_s) else duration_text(round(endpoint.timeout_s * SECOND_NS)),
    }
    if not endpoint.insecure:
        described["tls"] = {"ca": _text(endpoint.ca), "cert": _text(endpoint.cert), "key": _text(endpoint.key)}
    return described


def _environment_s(config: DestinationConfig) -> str:
    """The destination of the environment as a comment: its signals can differ in ways that the file has no words for."""
    if config.name != ENVIRONMENT:
        return ""

    described = {
        signal: {"url": endpoint.name + _query(endpoint), "protocol": endpoint.protocol} | _delivery(endpoint)
        for signal, endpoint in config.endpoints.items()
    }
    lines = ["The destination of the OTEL_EXPORTER_OTLP_* variables:", *_yaml({config.name: described}).splitlines()]
    return "".join(f"# {line}\n" for line in lines)


def _query(endpoint: Endpoint) -> str:
    return f"?{HIDDEN}" if endpoint.protocol == "http/protobuf" and "?" in endpoint.url else ""


def _address(health: HealthConfig) -> str:
    if health.host is None:
        return "none"
    return f"[{health.host}]:{health.port}" if ":" in health.host else f"{health.host}:{health.port}"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _escaped(value: Any) -> Any:  # noqa: ANN401  # whatever a YAML document holds
    """The values so that no `$` in them begins a reference; keys refer to nothing."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, Sequence) else value


def _yaml(document: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, allow_unicode=True, width=1_000_000)
    return text
