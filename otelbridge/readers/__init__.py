"""What arrived: bytes of one format in, batches of events out. One file for each word of `--format`."""

from otelbridge.readers.formats import FORMATS
from otelbridge.readers.log import LogReader

__all__ = ["FORMATS", "LogReader"]
