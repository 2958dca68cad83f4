"""The rendered examples are what the chart renders now.

`OTELBRIDGE_REGENERATE=1 pytest tests/deploy/test_chart_goldens.py` writes them anew.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.deploy.charts import CHART, parent_chart, render

EXAMPLES = sorted(path.parent.name for path in (CHART / "examples").glob("*/values.yaml"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_rendered_as_it_stands_there(example: str, tmp_path: Path) -> None:
    folder = CHART / "examples" / example
    if example == "sidecar":
        found = render({}, parent_chart(tmp_path))
    else:
        found = render(yaml.safe_load((folder / "values.yaml").read_text("utf-8")))
    found.pop("NOTES.txt", None)
    if os.environ.get("OTELBRIDGE_REGENERATE") == "1":
        write(folder / "rendered", found)
    files = [path for path in (folder / "rendered").rglob("*") if path.is_file()]
    assert {str(path.relative_to(folder / "rendered")): path.read_text("utf-8") for path in files} == found


def write(folder: Path, found: dict[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
