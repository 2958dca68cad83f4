"""The wheel: what a user installs holds everything that otelbridge reads at run time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

LOOK = """
import json, sys
from importlib import resources
from pathlib import Path
import otelbridge
from otelbridge.mapping import shipped_files, shipped_folder
package = Path(otelbridge.__file__).parent
json.dump({
    "package": str(package),
    "shipped_folder": str(shipped_folder()),
    "shipped": {file.path: file.text for file in shipped_files(with_tests=True)},
    "files": sorted(str(path.relative_to(package)) for path in package.rglob("*") if "__pycache__" not in path.parts),
}, sys.stdout)
"""


def run(command: list[str], cwd: Path, **environment: str) -> str:
    """What a command prints; its messages where it fails."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OTEL_"))}
    done = subprocess.run(
        command, cwd=cwd, env={**env, **environment}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout was installed, without what it depends on."""
    built, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(PROJECT)], built)
    (wheel,) = built.glob("*.whl")
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target), str(wheel)],
        built,
    )
    return target


@pytest.fixture
def installed(site: Path, tmp_path: Path) -> dict[str, object]:
    """What the installed package knows about itself, asked from a folder outside the checkout."""
    found: dict[str, object] = json.loads(run([sys.executable, "-c", LOOK], tmp_path, PYTHONPATH=str(site)))
    assert found["package"] == str(site / "otelbridge")
    return found


def test_all_mappings_are_inside(installed: dict[str, object], site: Path) -> None:
    assert installed["shipped_folder"] == str(site / "otelbridge" / "mappings")
    assert installed["shipped"] == {path.name: path.read_text("utf-8") for path in (PROJECT / "mappings").glob("*.yaml")}


def test_all_data_files_are_inside(installed: dict[str, object]) -> None:
    package = PROJECT / "otelbridge"
    data = {str(path.relative_to(package)) for path in package.rglob("*") if path.suffix in (".events", ".names", ".typed")}
    assert {"catalogue/migration.events", "catalogue/other.names", "py.typed"} <= data
    files = installed["files"]
    assert isinstance(files, list)
    assert data <= set(files)


def test_the_licence_is_inside(site: Path) -> None:
    (licence,) = site.glob("otelbridge-*.dist-info/licenses/LICENSE")
    assert licence.read_text("utf-8").lstrip().startswith("Apache License")


def test_it_converts_from_anywhere(site: Path, tmp_path: Path, recordings: Path) -> None:
    log = recordings / "debian-7.2" / "tls-ok" / "src.log"
    command = [sys.executable, "-m", "otelbridge", "convert", str(log), "--to", "file:out"]
    run(command, tmp_path, PYTHONPATH=str(site))
    assert '"tls.handshake"' in (tmp_path / "out" / "traces.jsonl").read_text("utf-8")
