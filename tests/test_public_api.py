"""What `import otelbridge` promises to other programs."""

import re
from importlib.metadata import entry_points, version
from pathlib import Path

import otelbridge
import otelbridge.cli


def test_the_package_offers_its_version_alone() -> None:
    """Everything else is the command; modules may change."""
    assert otelbridge.__all__ == ["__version__"]
    assert {name for name in vars(otelbridge) if not name.startswith("_")} <= {
        path.stem for path in Path(otelbridge.__file__).parent.iterdir()
    }


def test_the_version_is_that_of_the_distribution() -> None:
    assert otelbridge.__version__ == version("otelbridge")
    assert re.fullmatch(r"\d+\.\d+\.\d+", otelbridge.__version__)


def test_the_command_is_the_command_line_of_the_package() -> None:
    (command,) = entry_points(group="console_scripts", name="otelbridge")
    assert command.load() is otelbridge.cli.main


def test_the_package_says_that_it_has_types() -> None:
    assert Path(otelbridge.__file__).with_name("py.typed").is_file()
