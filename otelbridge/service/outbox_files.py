"""The files of the service's outbox: a damaged database that is set aside, and the new one that takes its place.

A new one is made as `FRESH` beside the old one and renamed when it is whole, so a crash leaves one of the two.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime
from pathlib import Path

from otelbridge.errors import SpoolError
from otelbridge.otlp.outbox import DATABASE

FRESH = "outbox.db.new"
SET_ASIDE_KEPT = 3

_ASIDE = f"{DATABASE}.damaged-"
_SIDE_FILES = ("", "-wal", "-shm")
_log = logging.getLogger(__name__)


class as_spool_error:  # noqa: N801 - used as a function
    """Turns what the file system says into what an outbox says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise SpoolError(f"{self._folder}: its files cannot be moved: {error.strerror}. They stay as they are.") from error


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def delete(database: Path) -> None:
    """Delete a database with what belongs to it, whichever of them there are."""
    for end in _SIDE_FILES:
        database.with_name(database.name + end).unlink(missing_ok=True)


def set_aside(database: Path, now: datetime) -> Path:
    """Rename a database with what belongs to it, and delete the oldest of those that were set aside before."""
    aside = database.with_name(f"{_ASIDE}{now:%Y%m%dT%H%M%S.%fZ}")
    for end in _SIDE_FILES:
        origin = database.with_name(database.name + end)
        if origin.exists():
            origin.rename(aside.with_name(aside.name + end))
    before = sorted(path for path in database.parent.glob(f"{_ASIDE}*") if path.name.endswith("Z") and path.is_file())
    for path in before[:-SET_ASIDE_KEPT]:
        delete(path)
    return aside


def finish_renaming(folder: Path) -> None:
    """Put a new database in its place where a crash came in between, and delete one that was not finished."""
    try:
        if not (folder / FRESH).exists():
            return
        if (folder / DATABASE).exists():
            delete(folder / FRESH)
        else:
            # What the old database's log holds must not be played into the new one.
            delete(folder / DATABASE)
            os.replace(folder / FRESH, folder / DATABASE)  # noqa: PTH105
    except OSError as error:
        _log.debug("A new database could not be moved. error=%s", error)
