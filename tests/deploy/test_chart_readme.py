"""Commands and values of the chart's README are given to Helm as they stand there."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.charts import CHART, helm, objects, render
from tests.deploy.test_chart_values import merged

README = (CHART / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    shlex.split(line) for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.startswith("helm ")
]
FILES = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml" and "{{" not in text]


def set_by(command: list[str]) -> Any:
    """The values of its `--set` options."""
    found: Any = {}
    for option, value in itertools.pairwise(command):
        if option == "--set":
            found = merged(found, helm().parse_set_string(value))
    return found


def test_every_helm_command_of_the_readme_renders() -> None:
    for command in COMMANDS:
        name, folder = command[2:4]
        assert command[1] in ("install", "upgrade")
        assert Path(folder) == Path("deploy/helm/otelbridge")
        values = set_by(command)
        if "--values" in command:
            (values,) = FILES
        assert objects(render(values, name=name))


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (CHART / link).exists()


def test_the_packaged_chart_holds_what_is_needed_and_no_examples(tmp_path: Path) -> None:
    archive = helm().package(CHART, destination=tmp_path)
    with helm().Chart.load(archive) as chart:
        files = {one["name"] for one in chart.files}
        assert chart.schema is not None
    assert "README.md" in files
    assert not [name for name in files if name.startswith(("ci/", "examples/"))]
