"""Fixtures of all tests: recordings, reference data beside the checkout, the command itself."""

import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# CI tries the same inputs each time, so that it fails for what was changed; everybody else's runs look for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)  # how long an example takes is the machine's matter
if os.environ.get("OTELBRIDGE_CI") == "1":
    settings.load_profile("ci")

TESTS = Path(__file__).resolve().parent
PROJECT = TESTS.parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI nothing may be missing, so what is skipped there has failed."""
    report = yield
    if report.skipped and os.environ.get("OTELBRIDGE_CI") == "1":
        report.outcome, report.longrepr = "failed", f"skipped where nothing may be: {report.longrepr}"
    return report


def is_there(path_or_program: Path | str) -> bool:
    """Whether a path exists (a `Path`, or text with a slash), or a program is on PATH (a plain word)."""
    if isinstance(path_or_program, Path) or "/" in path_or_program:
        return Path(path_or_program).exists()
    return shutil.which(path_or_program) is not None


def need(path_or_program: Path | str, reason: str) -> None:
    """Skip the test where something that it needs is missing; in CI (`OTELBRIDGE_CI=1`) fail it instead."""
    if is_there(path_or_program):
        return
    if os.environ.get("OTELBRIDGE_CI") == "1":
        pytest.fail(f"{path_or_program} is missing: {reason}", pytrace=False)
    pytest.skip(f"{path_or_program} is missing: {reason}")


@pytest.fixture(scope="session", name="need")
def need_fixture() -> object:
    """The helper `need`, as a fixture: importlib mode gives tests no `import conftest`."""
    return need


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference folder beside the checkout: catalogues of every QEMU release and many more recordings."""
    path = PROJECT.parent / "shared"
    need(path, "reference data that the checkout does not hold")
    return path


@pytest.fixture(scope="session")
def shared_recordings(shared: Path) -> Path:
    """All recordings of the reference folder, as `<group>/<scenario>/`."""
    return shared / "recordings"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The recordings that the checkout holds, as `<group>/<scenario>/`."""
    return TESTS / "recordings"


@pytest.fixture(scope="session")
def otelbridge_command() -> list[str]:
    """What starts otelbridge as a process of its own."""
    return [sys.executable, "-m", "otelbridge"]
