"""The QEMU releases whose events are known."""

from __future__ import annotations

import re

from otelbridge.errors import UsageError

VERSIONS = (
    "3.1.0", "4.0.0", "4.1.0", "4.2.0", "5.0.0", "5.1.0", "5.2.0", "6.0.0", "6.1.0", "6.2.0", "7.0.0", "7.1.0", "7.2.0",
    "8.0.0", "8.1.0", "8.2.0", "9.0.0", "9.1.0", "9.2.0", "10.0.0", "10.1.0", "10.2.0", "11.0-dev",
)  # fmt: skip
ALL = (1 << len(VERSIONS)) - 1
"""A set of versions is an integer: bit i stands for VERSIONS[i]."""

# 7.2   7.2.22   v9.2.0   11.0-dev   qemu-10.2.0   8.2.2+ds-0ubuntu1   Debian's 1:7.2+dfsg-7
_VERSION = re.compile(r"(?:qemu-|v|\d+:)?(?P<major>\d+)\.(?P<minor>\d+)(?:[.+~-].*)?$")


def resolve_version(text: str) -> str:
    """The known release that declares the same events as the one a user named; a stable release counts as its first.

    Raises:
        UsageError: It is no version, or older than what is known.
    """
    found = _VERSION.match(text.strip())
    if found is None:
        raise UsageError(f"--qemu-version '{text}' is no QEMU version; it should look like 7.2 or 10.2.0.")
    wanted = int(found["major"]), int(found["minor"])
    if wanted < _numbers(VERSIONS[0]):
        raise UsageError(
            f"--qemu-version '{text}' is older than {VERSIONS[0]}, the oldest whose events are known; "
            "give that QEMU's own trace-events-all with --catalogue."
        )
    return max((v for v in VERSIONS if _numbers(v) <= wanted), key=_numbers)


def between(first: str | None, last: str | None) -> int:
    """The set of versions from `first` to `last`, both included; None is open."""
    low = VERSIONS.index(first) if first else 0
    high = VERSIONS.index(last) if last else len(VERSIONS) - 1
    return (1 << (high + 1)) - (1 << low)


def range_text(versions: int) -> str | None:
    """`6.1.0 - 7.2.0`, `7.2.0` alone, None where no version is left."""
    if not versions:
        return None
    low = VERSIONS[(versions & -versions).bit_length() - 1]
    high = VERSIONS[versions.bit_length() - 1]
    return low if low == high else f"{low} - {high}"


def _numbers(version: str) -> tuple[int, int]:
    major, minor = re.match(r"(\d+)\.(\d+)", version).groups()  # type: ignore[union-attr]
    return int(major), int(minor)
