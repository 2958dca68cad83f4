"""What a file's name says of its QEMU."""

from __future__ import annotations

import pytest

from otelbridge.service.config.names import name_attributes

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"


@pytest.mark.parametrize(
    ("pattern", "path", "attributes"),
    [
        ("<domain>.log", "/logs/web-1.log", {"qemu.domain.name": "web-1"}),
        ("<domain>.log", "web.1.log", {"qemu.domain.name": "web.1"}),
        ("<domain>.log", "/logs/web-1.txt", {}),
        ("<domain>.log", "/logs/.log", {}),
        ("<namespace>_<vmi>.log", "/l/prod_web_1.log", {"k8s.namespace.name": "prod", "kubevirt.vmi.name": "web_1"}),
        ("<namespace>_<vmi>.log", "/l/prod.log", {}),
        ("<domain>-<uuid>.log", f"/l/web-1-{UUID}.log", {"qemu.domain.name": "web-1", "qemu.domain.uuid": UUID}),
        ("<uuid>", "/l/no-uuid", {}),
        ("<namespace>/<vmi>/trace.log", "/x/prod/web/trace.log", {"k8s.namespace.name": "prod", "kubevirt.vmi.name": "web"}),
        ("<vmi>.log", "/x/prod/web.log", {"kubevirt.vmi.name": "web"}),
        ("a+<vmi>.log", "/x/a+web.log", {"kubevirt.vmi.name": "web"}),
        ("a+<vmi>.log", "/x/aaweb.log", {}),
        ("", "/var/log/libvirt/qemu/web-1.log", {"qemu.domain.name": "web-1"}),
        ("", "/var/log/qemu/web-1.log", {}),
        ("", "/var/run/kubevirt-private/libvirt/qemu/log/prod_web.log", {}),
        (
            "<namespace>_<vmi>.log",
            "/var/run/kubevirt-private/libvirt/qemu/log/prod_web.log",
            {"k8s.namespace.name": "prod", "kubevirt.vmi.name": "web"},
        ),
    ],
)
def test_the_pattern_takes_the_name_apart(pattern: str, path: str, attributes: dict[str, str]) -> None:
    assert dict(name_attributes(pattern, path)) == attributes
