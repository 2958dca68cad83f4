"""The image, which the tests of it and of the unit share: it is built once."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

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
    with ExitStack() as stack:
        folder = store_folder()
        stack.callback(shutil.rmtree, folder)
        wheels = folder / "wheels"
        wheel = (sys.executable, "-m", "pip", "wheel", "-q", "--only-binary=:all:", "-w", wheels, ".[prometheus]")
        with ThreadPoolExecutor() as pool:  # all of them wait for the network
            made = [pool.submit(base, name) for name in BASES]
            made.append(pool.submit(run, *wheel, cwd=PROJECT))
        for one in made:
            one.result()
        store = Store(folder)
        stack.callback(store.close)
        yield Built(store, wheels, store.build(wheels, REVISION))
