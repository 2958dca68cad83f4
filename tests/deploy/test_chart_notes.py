"""What Helm tells after an installation names what is there, and what of the node it takes."""

from __future__ import annotations

import pytest

from tests.deploy.charts import MODES, objects, render
from tests.deploy.test_chart_renders import values_for

LABEL = "kubectl label namespace virt pod-security.kubernetes.io/enforce=privileged"


def notes(mode: str, **more: object) -> str:
    return render(values_for(mode, ("persistence",)) | more)["NOTES.txt"]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_needed_of_the_node_is_told_where_it_is(mode: str) -> None:
    assert (LABEL in notes(mode)) == (mode == "daemonset")
    assert ("user 0 with CAP_DAC_READ_SEARCH" in notes(mode)) == (mode == "daemonset")


def test_without_root_the_folder_that_must_be_writable_is_told() -> None:
    said = notes("daemonset", presets={"rootOnlyLogs": {"enabled": False}})
    assert "user 10001" in said
    assert "/var/lib/otelbridge/virt/example-otelbridge" in said
    assert "user 0" not in said


@pytest.mark.parametrize("mode", ["daemonset", "deployment"])
def test_the_command_for_the_status_page_names_the_object(mode: str) -> None:
    (line,) = [line for line in notes(mode).splitlines() if "port-forward" in line]
    kind, _, name = line.split()[4].partition("/")
    names = {
        one["kind"].lower(): one["metadata"]["name"]
        for one in objects(render(values_for(mode, ())))
        if one["kind"] in ("DaemonSet", "Deployment")
    }
    assert names == {kind: name}
