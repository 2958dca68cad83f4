"""Recordings that the tests of `convert` choose from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Logs = Callable[[str], list[Path]]


@pytest.fixture(scope="session")
def logs(recordings: Path, request: pytest.FixtureRequest) -> Logs:
    """The logs of a recording named `group/scenario`, source first: the checkout's own, else those of the reference folder."""

    def of(name: str) -> list[Path]:
        folder = recordings / name
        if not folder.is_dir():
            folder = Path(request.getfixturevalue("shared_recordings")) / name
        return sorted((*folder.glob("*.log"), *folder.glob("*.log.gz")), reverse=True)

    return of
