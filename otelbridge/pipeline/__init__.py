"""Plain wiring: files -> readers -> engines -> sinks -> accounting."""

from otelbridge.pipeline.conversion import Conversion, convert
from otelbridge.pipeline.options import ConvertOptions, load_catalogue, load_declarations

__all__ = ["Conversion", "ConvertOptions", "convert", "load_catalogue", "load_declarations"]
