"""What the documentation of the OpenTelemetry SDK leads to: `sdk_idiom.py LOG ENDPOINT [--no-counter]`.

A tracer with the BatchSpanProcessor and the stock exporter, all with their defaults; a regular expression on each line; a span
is begun by one event and ended by another of the same thread; a counter adds one for each event, unless told not to. Prints how
many spans were made.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span

LINE = re.compile(r"(\d+)@(\d+)\.(\d{6}):(\w+) ?(.*)")
BEGINS = {
    "savevm_section_start": "savevm.section",
    "migration_bitmap_sync_start": "ram.bitmap_sync",
    "migration_rate_limit_pre": "migration.rate_limit",
    "mark_postcopy_blocktime_begin": "postcopy.blocktime",
    "savevm_state_setup": "savevm",
}
ENDS = {
    "savevm_section_end": "savevm.section",
    "migration_bitmap_sync_end": "ram.bitmap_sync",
    "migration_rate_limit_post": "migration.rate_limit",
    "mark_postcopy_blocktime_end": "postcopy.blocktime",
    "savevm_state_cleanup": "savevm",
}


def _key(name: str, thread: str, text: str) -> tuple[str, str]:
    """What both ends of a span have in common: the page of a fault, else the thread."""
    return name, text.partition(",")[0] if name == "postcopy.blocktime" else thread


def main() -> int:
    """Read the log and export what comes of it."""
    log, endpoint = sys.argv[1:3]
    resource = Resource.create({"service.name": "qemu"})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint))], resource=resource)
    tracer = traces.get_tracer("sdk-idiom")
    events = None if "--no-counter" in sys.argv else meters.get_meter("sdk-idiom").create_counter("qemu.trace.events")

    made = 0
    begun: dict[tuple[str, str], Span] = {}
    with Path(log).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            found = LINE.match(line)
            if found is None:
                continue
            thread, seconds, micros, event, text = found.groups()
            if events is not None:
                events.add(1, {"event": event})
            if name := BEGINS.get(event):
                time_ns = int(seconds + micros) * 1000
                attributes = {"thread.id": int(thread), "qemu.event.text": text}
                begun[_key(name, thread, text)] = tracer.start_span(name, start_time=time_ns, attributes=attributes)
            elif (name := ENDS.get(event)) and (span := begun.pop(_key(name, thread, text), None)):
                span.set_attribute("qemu.event.end", text)
                span.end(int(seconds + micros) * 1000)
                made += 1
    traces.shutdown()
    meters.shutdown()
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
