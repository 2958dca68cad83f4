"""What "In ten minutes" says is done as far as it can be here; the commands before the events are in test_systemd_host.py."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.backends import DEPLOY
from tests.deploy.charts import objects, of_kind, pod_of, render
from tests.deploy.guide import commands
from tests.deploy.qemu import BOOT_S, MIGRATION_S, QEMU, machine
from tests.deploy.test_chart_readme import set_by
from tests.service.running import OTELBRIDGE, converted, environment, until

VIRSH = f"""#!{sys.executable}
import json, sys
with open("virsh.jsonl", "a") as kept:
    print(json.dumps(sys.argv[1:]), file=kept)
"""
PROGRAM = "/opt/otelbridge/bin/otelbridge"
Need = Callable[[Path | str, str], None]


def lines(of: str, word: str) -> list[list[str]]:
    """The commands that begin so, as words."""
    return [shlex.split(line) for line in commands(of) if line.startswith(word)]


def test_what_the_guide_for_libvirt_asks_of_virsh_makes_a_trace(tmp_path: Path, need: Need) -> None:
    """What virsh would hand on is given to a real QEMU, whose events are off until then."""
    need(QEMU, "it migrates: apt-get install qemu-system-x86")
    virsh, program = tmp_path / "virsh", tmp_path / "otelbridge"
    virsh.write_text(VIRSH)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(OTELBRIDGE)} "$@"\n')
    for one in (virsh, program):
        one.chmod(0o755)
    asked = [
        line.replace(PROGRAM, str(program)) for line in commands("libvirt") if "DOMAIN=" in line or line.startswith("virsh")
    ]
    path = f"{tmp_path}:{os.environ['PATH']}"
    for line in asked:
        subprocess.run(["sh", "-euc", line], check=True, cwd=tmp_path, env=environment(PATH=path))
    *events, save, restore = [json.loads(line) for line in (tmp_path / "virsh.jsonl").read_text().splitlines()]
    assert (save[0], restore[0], save[-1]) == ("save", "restore", restore[-1])
    log = tmp_path / "vm1.log"
    with machine(tmp_path, save[1], log, is_traced=False) as vm:
        until(lambda: vm.rounds() > 0, BOOT_S)
        for command, option, domain, text in events:
            assert (command, option, domain) == ("qemu-monitor-command", "--hmp", save[1])
            assert vm.ask("human-monitor-command", command_line=text) == "", text
        vm.ask("stop")
        vm.ask("migrate", uri=f"exec:cat >{tmp_path / 'saved'}")
        until(vm.has_ended, MIGRATION_S)
        assert converted([log])[0]


def test_the_commands_for_kubernetes_fit_each_other() -> None:
    """The image that is built and pushed is the one that the pods run; what kubectl is asked for is what Helm makes."""
    (install,) = lines("kubernetes", "helm")
    name, namespace = install[2], install[install.index("--namespace") + 1]
    assert install[:2] == ["helm", "install"]
    assert install[3] == "deploy/helm/otelbridge"
    found = objects(render(set_by(install), name=name, namespace=namespace))
    (container,) = pod_of(found, "DaemonSet")["containers"]
    (build,), (push,) = lines("kubernetes", "docker build"), lines("kubernetes", "docker push")
    assert build[build.index("-t") + 1] == push[-1] == container["image"]
    dockerfile = build[build.index("-f") + 1]
    assert (DEPLOY.parent / dockerfile).exists()
    (wheel,) = lines("kubernetes", "python3.11 -m pip")
    assert f"#   {commands('kubernetes')[0]}" in (DEPLOY.parent / dockerfile).read_text().splitlines()
    assert wheel[-1] == ".[prometheus]"
    create, label, rollout, inside = lines("kubernetes", "kubectl")
    assert create[-1] == label[3] == namespace
    daemonset = f"daemonset/{of_kind(found, 'DaemonSet')['metadata']['name']}"
    assert rollout == ["kubectl", "-n", namespace, "rollout", "status", daemonset]
    assert inside[:6] == ["kubectl", "-n", namespace, "exec", daemonset, "--"]
    assert inside[-2:] == container["args"][-2:]


@pytest.mark.parametrize("of", ["libvirt", "kubernetes"])
def test_it_is_short(of: str) -> None:
    assert len(commands(of)) <= 10
