"""Memory that the C library keeps although it was freed: what the buffers of months leave behind between what lives on.

Only glibc has such knobs; elsewhere nothing is done. With fifty busy logs 3 to 11 % of the memory was such.

Source: glibc, mallopt(3) and malloc_trim(3).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_M_ARENA_MAX = -8


def bound() -> None:
    """Let all threads share one arena: they take turns anyway, and each of their own would keep what it once needed."""
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give what is free back to the system; some milliseconds."""
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
    return found
