"""The mapping files that streams were read by, as the outbox keeps them.

What was read since a stream's last snapshot is read again after a crash. That must be done by the rules that it was read by
the first time: what came of it is in the outbox already.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Sequence

from otelbridge.errors import OtelbridgeError
from otelbridge.mapping import File, compile_mappings
from otelbridge.service.streams import Kind

KEY = "mappings"
"""Of the state that holds them."""
_UNUSABLE = (zlib.error, ValueError, TypeError)
_log = logging.getLogger(__name__)


def packed(files: Sequence[File]) -> bytes:
    """The files as the state of that key."""
    return zlib.compress(json.dumps(files).encode())


def kinds_before(kinds: Sequence[Kind], files: Sequence[File], kept: bytes | None) -> Sequence[Kind]:
    """The same kinds with the rules that are kept; the kinds themselves where these are the same or cannot be used.

    Args:
        kinds: What the streams of each input share now.
        files: The mapping files they were made from.
        kept: The state, None where there is none.
    """
    try:
        before = None if kept is None else [File(*one) for one in json.loads(zlib.decompress(kept))]
        if before is None or before == list(files):
            return kinds
        mapping = {id(kind.told.catalogue): compile_mappings(before, kind.told.catalogue) for kind in kinds}
    except (OtelbridgeError, *_UNUSABLE) as error:
        _log.warning(
            "What came just before the service was killed is read by the new mappings: the old ones are unusable (%s).", error
        )
        return kinds
    return [kind._replace(mapping=mapping[id(kind.told.catalogue)]) for kind in kinds]
