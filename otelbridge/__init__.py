"""otelbridge turns QEMU's trace events of live migrations into OpenTelemetry spans and metrics."""

__version__ = "0.1.0"

__all__ = ["__version__"]
