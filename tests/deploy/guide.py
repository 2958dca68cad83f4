"""The commands of "In ten minutes", from the text of the guides."""

from __future__ import annotations

import re

from tests.deploy.backends import DEPLOY

GUIDES = DEPLOY / "README.md"


def commands(of: str) -> list[str]:
    """The lines of the block for `libvirt` or `kubernetes`, each a command."""
    (block,) = re.findall(rf"^```bash {of}\n(.*?)^```$", GUIDES.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return str(block).replace("\\\n", "").splitlines()
