"""The image, which the tests of it and of the unit share: it is built once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.deploy.images import BASES, PROJECT, PYTHON, REVISION, Built, Store, base, run, store_folder

Need = Callable[[str, str], None]


def can_not(reason: str) -> None:
    (pytest.fail if os.environ.get("OTELBRIDGE_CI") == "1" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def built(need: Need) -> Iterator[Built]:
    """The image, built once for all tests."""
    for program in ("buildah", "podman", "runc", "mmdebstrap"):
        need(program, "builds and runs the image")
    if os.geteuid() != 0:
        can_not("Images are built and run by root here.")
    if sys.version_info[:2] != PYTHON:
        can_not(f"The base has Python {PYTHON}, and the wheels are made by {sys.version_info[:2]}.")
    folder = store_folder()
    wheels = folder / "wheels"
    with ThreadPoolExecutor() as pool:  # all of them wait for the network
        made = [pool.submit(base, name) for name in BASES]
        wheel = (sys.executable, "-m", "pip", "wheel", "-q", "--only-binary=:all:", "-w", wheels, ".[prometheus]")
        made.append(pool.submit(run, *wheel, cwd=PROJECT))
        for one in made:
            one.result()
    store = Store(folder)
    try:
        yield Built(store, wheels, store.build(wheels, REVISION))
    finally:
        store.close()
