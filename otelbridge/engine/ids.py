"""Ids are derived, never random: the same stream gives the same ids, whoever converts it and however often."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

SPAN_ID_BYTES = 8


def stream_key(*identity: str | bytes) -> bytes:
    """The 16 bytes that stand for a stream in all its ids, from whatever tells it from other streams."""
    digest = blake2b(digest_size=16)
    for part in identity:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def span_id(stream: bytes, rule: str, number: int, start_ns: int) -> bytes:
    """The id of the `number`-th span that `rule` began in the stream: 8 bytes, not all zero."""
    return span_ids(stream, rule)(number, start_ns)


def span_ids(stream: bytes, rule: str) -> Callable[[int, int], bytes]:
    """The same for many spans of one rule: their ids by number and begin."""
    # The name of a state is whatever stands in the trace, and may be no text.
    begun = blake2b(b"%s|" % rule.encode("utf-8", "surrogateescape"), digest_size=SPAN_ID_BYTES, key=stream)

    def identity(number: int, start_ns: int) -> bytes:
        digest = begun.copy()
        digest.update(b"%d|%d" % (number, start_ns))
        return _nonzero(digest.digest())

    return identity


def trace_id(stream: bytes, rule: str, number: int, start_ns: int) -> bytes:
    """The id of the trace whose first span that is: 16 bytes, not all zero."""
    name = rule.encode("utf-8", "surrogateescape")
    return _nonzero(blake2b(b"%s|%d|%d" % (name, number, start_ns), digest_size=16, key=stream).digest())


def _nonzero(digest: bytes) -> bytes:
    return digest if digest.strip(b"\0") else b"\x01" + digest[1:]
